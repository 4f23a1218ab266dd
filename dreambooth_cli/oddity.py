"""What is odd about a class prompt that can be read: it names one individual, several, or a place, or is in another language.

The class prompt says what the subject is in general. Anything that is true only of this one (whose it is, what it is called, where it
is) would also be in the class images, which would then preserve that instead of the class.
"""

import gzip
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import ascii_lowercase

from .identifier import names
from .phrase import DETERMINERS, MARKS, NAMING, OF, POSSESSIVE, VERBS, Phrase, agree, read_phrase, word_set

NOUNS = Path(__file__).with_name("nouns.txt")
DICTIONARY = Path(__file__).with_name("dictionary")
PLACED = word_set(
    "in on at beside besides behind above below beneath underneath under near inside outside among amid against atop over across along "
    "between around outdoors indoors"
)
OWN = word_set("my your his her its our their whose")
POINTED = word_set("the this that these those")
TITLES = word_set(
    "mr mrs ms miss mister dr doctor prof professor sir dame lord lady captain prince princess uncle aunt auntie "
    "grandma grandpa granny herr frau monsieur madame señor señora"
)
PAIRED = word_set(  # one thing with a plural name
    "glasses sunglasses eyeglasses spectacles goggles binoculars scissors pliers tweezers jeans trousers pants shorts tights leggings "
    "pyjamas pajamas overalls headphones earphones earbuds clothes stairs shoes sneakers trainers boots sandals slippers heels socks "
    "gloves mittens earrings skis skates bagpipes chopsticks flowers cards keys blinds curtains knickers pincers shears dungarees"
)
NO_PLURAL = ("ss", "us", "is", "os", "as")  # dress, bus, iris, rhinos are few beside thermos, canvas
IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "persons": "person", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "oxen": "ox", "wolves": "wolf", "knives": "knife", "calves": "calf", "leaves": "leaf",
    "shelves": "shelf", "loaves": "loaf", "elves": "elf", "scarves": "scarf", "buses": "bus", "cacti": "cactus", "pandas": "panda",
    "koalas": "koala", "gorillas": "gorilla", "sofas": "sofa", "cameras": "camera", "iguanas": "iguana", "llamas": "llama",
    "alpacas": "alpaca", "chihuahuas": "chihuahua", "pizzas": "pizza", "bananas": "banana", "umbrellas": "umbrella", "rhinos": "rhino",
    "hippos": "hippo", "photos": "photo", "pianos": "piano", "flamingos": "flamingo", "dinos": "dino",
    "potatoes": "potato", "tomatoes": "tomato", "shoes": "shoe", "toes": "toe", "movies": "movie", "cookies": "cookie",
    "zombies": "zombie", "selfies": "selfie", "hoodies": "hoodie", "collies": "collie", "birdies": "birdie", "axes": "axe",
}  # fmt: skip
UNCHANGED = word_set("series species lens jeans swiss lotus news gas bias atlas texas christmas")
NOT_SHORT = 5  # letters: a short word of another language is one letter away from some English one
AGAIN = 3  # oddities that may be taken from a class prompt, one after another
OF_MINE = re.compile(r"(.+) of (?:mine|yours|his|hers|ours|theirs)\b", re.IGNORECASE)
PICTURE_FILE = re.compile(r"\.(?:jpe?g|png|webp|heic|gif|bmp|tiff?)$", re.IGNORECASE)
HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])")
CHINESE = re.compile("[\u3400-\u9fff]")
BEHIND_A_PLACE = re.compile("在.*$|的?(?:照片|图片|圖片|相片|图像|照)$")  # where it is, and "a photo of", which Chinese says last


@dataclass(frozen=True)
class Oddity:
    """What is odd about a class prompt, in words that follow it, and the class prompt that may be meant ("" if unknown)."""

    words: str
    offer: str


def find_oddity(class_prompt: str) -> Oddity | None:
    """What is odd about a class prompt; None if it says what the subject is in general, or if nothing is known about it."""
    text = " ".join(class_prompt.split())
    odd = None if "[" in text else _first_oddity(text)
    for _ in range(AGAIN):  # what may be meant can be odd in another way: my_dog -> my dog -> a dog
        further = _first_oddity(odd.offer) if odd is not None and odd.offer else None
        if odd is None or further is None or not further.offer:
            break
        odd = Oddity(odd.words, further.offer)
    return odd


def _first_oddity(text: str) -> Oddity | None:
    kinds = (_other_language, _file_name, _individual, _sentence, _plural, _place, _unknown)
    return next(filter(None, (kind(text) for kind in kinds)), None)


@cache
def known_nouns() -> dict[str, str]:
    """Noun in another language -> class prompt in English."""
    lines = NOUNS.read_text(encoding="utf-8").splitlines()
    pairs = [line.split(": ") for line in lines if not line.startswith("#")]
    return {noun.casefold(): english for english, nouns in pairs for noun in nouns.split()}


@cache
def english_nouns() -> frozenset[str]:
    """What a subject may be called in English, in small letters and in the singular: WordNet's nouns of things, people and places, and
    newer ones."""
    old = gzip.decompress((DICTIONARY / "nouns.txt.gz").read_bytes()).decode("ascii")
    return word_set(old) | word_set((DICTIONARY / "newer_nouns.txt").read_text(encoding="ascii"))


def in_english(text: str) -> str:
    """The English class prompt for a text in another language, if the table knows its noun; else "".

    Chinese has no spaces, and the noun comes last: `我的小狗在海滩上` -> `a puppy`.
    """
    nouns = known_nouns()
    if CHINESE.search(text):
        head = BEHIND_A_PLACE.sub("", BEHIND_A_PLACE.sub("", text.casefold().strip("。，！？ ")))
        found = [(head.rfind(noun) + len(noun), len(noun), noun) for noun in nouns if CHINESE.search(noun) and noun in head]
        return nouns[max(found)[2]] if found else ""
    words = [word.strip(MARKS) for word in text.casefold().split()]
    return next((nouns[word] for word in words if word in nouns), "")


def with_article(noun: str) -> str:
    """`old dog` -> `an old dog`; things with a plural name get no article."""
    if noun.split()[-1].casefold() in PAIRED:
        return noun
    return f"{agree('a', noun)} {noun}"


def singular(noun: str) -> str:
    """One of them: `brown dogs` -> `brown dog`; singular nouns, and things with a plural name, stay as they are."""
    *before, word = noun.split()
    plain = word.casefold()
    if plain in PAIRED or plain in UNCHANGED:
        return noun
    if plain in IRREGULAR:
        return " ".join([*before, IRREGULAR[plain]])
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("zzes", "z"), ("s", "")):
        if plain.endswith(ending) and len(plain) > len(ending) + 1 and not plain.endswith(NO_PLURAL):
            return " ".join([*before, word[: -len(ending)] + instead])
    return noun


def frame_of(phrase: Phrase) -> str:
    """The sentence around the noun: `a photo of a ... on the beach`; "" if there is none."""
    around = [*phrase.words[: phrase.start], "...", *phrase.words[phrase.end :]]
    return " ".join(around) if len(around) > 1 else ""


def _other_language(text: str) -> Oddity | None:
    english = in_english(text)
    if not english:
        return None
    language = "is Chinese" if CHINESE.search(text) else "is not English"
    return Oddity(f"{language}, and most base models know only English", english)


def _file_name(text: str) -> Oddity | None:
    plain = PICTURE_FILE.sub("", text)
    if plain != text or (" " not in plain and ("_" in plain or HUMPS.search(plain))):
        words = HUMPS.sub(" ", plain).replace("_", " ").casefold().strip()
        says = words if words.split()[:1] and words.split()[0] in DETERMINERS else with_article(words) if words else ""
        offer = says if words.replace(" ", "").isalpha() else ""
        return Oddity("looks like a file name", offer)
    if "_" in text:
        return Oddity("has _ where words have spaces", text.replace("_", " "))
    return None


def _individual(text: str) -> Oddity | None:
    """Whose it is, or what it is called: my dog, Anna's dog, Rex the dog, my dog Rex, a dog named Rex."""
    words = text.split()
    plain = [word.casefold().replace("’", "'").strip(MARKS) for word in words]
    for place, word in enumerate(plain[1:-1], start=1):
        before, is_named = plain[place - 1], place > 1 and plain[place - 2] in OF and _is_name(words[place - 1])  # photo of Rex the dog
        if word == "the" and before not in DETERMINERS and before not in OF and (place == 1 or is_named):
            general = _general(words[place + 1 :])
            return Oddity("names one individual", " ".join([*words[: place - 1], general]) if general else "")
        if word in NAMING and word in ("called", "named"):
            return Oddity("names one individual", _general(words[:place]))
    if len(words) > 1 and words[0].endswith(",") and _is_name(words[0].strip(MARKS)) and plain[1] in DETERMINERS:
        return Oddity("names one individual", _general(words[1:]))
    if mine := OF_MINE.match(text):
        return Oddity("says whose it is, which is true only of this one", _general(mine[1].split()))
    phrase = read_phrase(text)
    inner = words[phrase.start : phrase.end]
    is_any = phrase.start and plain[phrase.start - 1] in ("a", "an") and inner and inner[0].islower()  # a daisy, a lily
    if inner and not is_any and all(word.casefold().strip(MARKS) in names() for word in inner):
        return Oddity("has a name, and does not say what it is", "")
    if len(words) > 1 and plain[0].rstrip(".") in TITLES and words[1][0].isupper():  # Mr Whiskers
        return Oddity("names one individual", "")
    if not inner or phrase.doubt:
        return None
    if len(inner) > 1 and (name := inner[-1].strip(MARKS)).casefold() in names():
        rest = " ".join(inner[:-1])
        return Oddity(f"names one individual, {name}", _replaced(phrase, rest) if phrase.start or rest.islower() else "")  # not of Big Ben
    before = plain[phrase.start - 1] if phrase.start else ""
    if before in OWN or (phrase.start and POSSESSIVE.fullmatch(words[phrase.start - 1])):
        return Oddity("says whose it is, which is true only of this one", _replaced(phrase, phrase.noun))
    if before in POINTED:
        noun = inner[-1].casefold() if all(word[0].isupper() for word in inner) else phrase.noun  # the Eiffel Tower
        return Oddity("means one in particular, but the question is what it is in general", _replaced(phrase, noun))
    if len(inner) > 1 and inner[0].strip(MARKS).casefold() in names() and inner[0][0].isupper() and not phrase.start:
        rest = " ".join(inner[1:])
        return Oddity(f"names one individual, {inner[0]}", _replaced(phrase, rest) if rest.islower() else "")  # not of Taylor Swift
    return None


def _sentence(text: str) -> Oddity | None:
    """In `this is my dog`, what it is comes after the verb; in `my dog is here`, before it."""
    words = text.split()
    verb = next((place for place, word in enumerate(words) if word.casefold().replace("’", "'").strip(MARKS) in VERBS), None)
    if verb is None:
        return None
    behind, before = words[verb + 1 :], words[:verb]  # this is my dog; my dog is here
    says_what = bool(behind) and behind[0].casefold() in DETERMINERS
    individual = None if says_what else _individual(" ".join(before))
    offer = individual.offer if individual else _general(behind if says_what else before)
    return Oddity("reads like a sentence", offer) if offer and read_phrase(text).doubt else None


def _plural(text: str) -> Oddity | None:
    phrase = read_phrase(text)
    one = singular(phrase.noun) if phrase.noun else ""
    if phrase.doubt or one == phrase.noun:
        return None
    return Oddity("means several, but only one is learned", _replaced(phrase, one))


def _place(text: str) -> Oddity | None:
    phrase = read_phrase(text)
    rest = [word.casefold().strip(MARKS) for word in phrase.words[phrase.end :]]
    place = next((place for place in range(len(rest)) if _begins_a_place(rest[place:])), None)
    if phrase.doubt or place is None:
        return None
    is_doing = rest[0].endswith(("ing", "ed"))  # sitting on a sofa
    kept = " ".join(phrase.words[: phrase.end + (0 if is_doing else place)]).rstrip(",; ")
    said = " ".join(phrase.words[phrase.end + place :])
    return Oddity(f'says where it is or how it looks there ("{said}"): that would be learned with it', kept)


def _unknown(text: str) -> Oddity | None:
    """A name, or a noun of another language, that no table has: Barack Obama, a kot."""
    phrase = read_phrase(text)
    words = phrase.noun.split()
    if phrase.doubt or not words or len(words[-1]) == 1 or any(letter.isdigit() for letter in words[-1]):  # vitamin C, a PS5
        return None
    head = words[-1].casefold()
    last = head.replace("-", " ").split()[-1:]  # a coffee-cup
    if {head, singular(head), *last} & (english_nouns() | PAIRED):
        return None
    if words[-1][0].isupper():
        return Oddity("has a name, and does not say what it is", "")
    meant = mistyped(words[-1])
    offer = _replaced(phrase, " ".join([*words[:-1], meant])) if meant else ""
    return Oddity(f'calls it "{words[-1]}", a word that our English dictionary lacks, and most base models know only English', offer)


def mistyped(word: str) -> str:
    """The English noun for which this one may be a slip of the finger: two letters that changed places, or, in a word that is not short,
    one left out or typed twice. "" if there is none, or several."""
    parts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
    near = {f"{before}{after[1]}{after[0]}{after[2:]}" for before, after in parts if len(after) > 1}
    if len(word) >= NOT_SHORT:
        near |= {before + after[1:] for before, after in parts if before[-1:] == after[:1] != ""}
        near |= {before + letter + after for before, after in parts for letter in ascii_lowercase}
    found = near & english_nouns()
    return found.pop() if len(found) == 1 else ""


def _begins_a_place(words: list[str]) -> bool:
    """Whether these words begin with a place: `on a sofa`, `next to a car`, `by the sea`; `by Gucci` is none."""
    first, then = words[0], words[1] if len(words) > 1 else ""
    return first in PLACED or (first in ("next", "close") and then == "to") or (first == "by" and then in DETERMINERS)


def _is_name(word: str) -> bool:
    return word[:1].isupper() or word.casefold() in names()


def _general(words: list[str]) -> str:
    """What part of a class prompt names, in general: `my old dog` -> `an old dog`; "" if it can't be read."""
    phrase = read_phrase(" ".join(words))
    return _replaced(phrase, phrase.noun) if phrase.noun and not phrase.doubt else ""


def _replaced(phrase: Phrase, noun: str) -> str:
    """The class prompt with its noun phrase, determiner included, replaced by one of its kind: `a photo of my dogs` -> `a photo of a dog`.
    Whatever comes after the noun is dropped."""
    start = phrase.start
    while start and (phrase.words[start - 1].casefold().strip(MARKS) in DETERMINERS or POSSESSIVE.fullmatch(phrase.words[start - 1])):
        start -= 1
    has_of = any(word.casefold() in OF for word in phrase.words[:start])
    return " ".join([*(phrase.words[:start] if has_of else ()), with_article(singular(noun))])
