"""Where the subject stands in a class prompt: the first noun phrase, or the one after "a photo of". English, by plain rules.

The rules know determiners, prepositions and the commonest verbs, and take every other word for an adjective or a noun. Where they can't
tell, they don't guess: `doubt` says why.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher


def word_set(text: str) -> frozenset[str]:
    """The words of a text, without its lines that begin with #."""
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


PICTURES = word_set(
    "photo photos photograph photographs picture pictures image images pic pics shot shots snapshot snapshots close-up "
    "closeup close-ups view views selfie selfies headshot headshots portrait portraits still scan screenshot img photography"
)
ARTWORKS = word_set(
    "painting paintings drawing drawings sketch sketches illustration illustrations render renders rendering renderings "
    "rendition depiction artwork art watercolor watercolour cartoon doodle etching engraving"
)
FRAMES = PICTURES | ARTWORKS  # these show the subject if "of" follows
OF = word_set("of showing depicting featuring")
COUNTS = word_set("some any each all both many few several one two three four five six seven eight nine ten")
DETERMINERS = COUNTS | word_set("a an the my your his her its our their whose this that these those every another no")
UNITS = word_set("year month week day inch foot euro dollar pound cent")  # a number before them counts no subjects: `a 2 year old girl`
MEASURES = word_set(
    "pair pairs piece pieces kind type sort breed bit lot lots bunch couple group face head front back side top bottom half "
    "inside outside interior exterior rear example instance specimen"
)
STRICT = word_set("with without in on at by from for into onto of to beside besides behind above below beneath underneath")
PREPOSITIONS = STRICT | word_set(
    "about across after against along alongside among amid around as atop before between beyond during except inside like "
    "near outside over since through throughout toward towards under until upon via within"
)
WEAK = word_set("up down off out past next opposite round away close together")  # prepositions only before another one
RELATIVE = word_set("that which who whom whose where while when")
NAMING = word_set("called named wearing holding carrying having")
PARTICIPLES = word_set(
    "dressed showing doing making looking smiling chasing posing full sitting standing running lying laying sleeping "
    "playing walking jumping eating drinking riding reading flying swimming resting leaning waiting hanging floating "
    "staring facing watching driving dancing singing climbing hiding crouching kneeling hugging using being going "
    "coming talking laughing crying yawning barking made taken seen seated worn kept held shot drawn driven eaten "
    "hidden bought sold found left lit set built written grown shown"
)
VERBS = word_set(
    "is are was were be been am has had does did could would should sits wears eats loves wants goes "
    "comes says sees holds sat ran stood ate went came slept wore bought loved liked isn't aren't wasn't don't doesn't "
    "it's that's he's she's there's here's what's who's i'm i've you're we're they're let's"
)
VERBS_OR_NOUNS = word_set("can will must may do")
PLURALS_OR_VERBS = word_set("stands runs looks jumps plays walks rides likes lies smiles barks sleeps carries")
ORDERS = word_set("draw generate make create show paint imagine give teach learn take please want need love like see")
SUBJECTS = word_set("i you he she it we they")
PRONOUNS = SUBJECTS | word_set("me him them us myself himself herself itself themselves ourselves yourself mine")
CONJUNCTIONS = word_set("and or & + nor plus vs")
DESCRIPTIONS = word_set(  # which "and" or a comma may join before one noun
    "black white red green blue yellow brown grey gray orange pink purple golden gold silver tan cream beige big small "
    "large little tiny old young new cute fluffy furry soft round tall short long thin fat warm cold bright dark light shiny "
    "striped spotted happy sad clean dirty nice good beautiful pretty fresh hot wet dry wooden plastic metal"
)
STATES = word_set("cold warm happy sad clean dirty wet dry fresh hot")  # those that vary from photo to photo
LIGHT = word_set("light lighting lit hour sky day night weather background backdrop shadow shadows")
BODY = word_set(
    "fur coat hair hairs eye eyes ear ears tail tails nose snout paw paws leg legs skin face beard feather feathers wing wings "
    "handle lid spout strap straps wheel wheels"
)
STYLES = word_set(
    "masterpiece quality 4k 8k hd uhd photorealistic realistic detailed cinematic bokeh outdoors indoors outside inside "
    "closeup close-up portrait daylight night day sunset minimal minimalist monochrome solo photo photograph photography "
    "professional studio raw sharp focus illustration painting digital dslr hdr nikon canon polaroid analog vintage grainy "
    "blurry artstation unsplash flickr trending isolated background full-body headshot symmetrical centered profile frontal"
)
MEDIA = word_set("oil watercolor watercolour acrylic pencil ink charcoal crayon pastel digital abstract pixel line wall framed")
NO_SUBJECT = word_set("masterpiece quality 4k 8k hd uhd photography")
OTHER_ARTICLES = word_set(
    "un une ein eine einen einer der das una uno il lo gli um uma een het ett et en bir le la les los las el des "
    "foto fotos fotografie fotografia imagen imagem immagine bild bilder zdjecie retrato ritratto obraz gambar fotka kuva "
    "mon ma mes mi mis mein meine mio meu minha mijn notre votre"
)
OTHER_NOUNS = word_set("perro perra gato hombre mujer niña chien chienne homme femme hund katze frau cachorro gatto uomo hond")
OTHER_OF = word_set("de di du von van av af avec del da do")
ABBREVIATIONS = word_set("mr mrs ms dr st mt jr sr lt no vs prof")
OTHER_LANGUAGES = word_set("vom und avec dans della delle degli nella een het och från für über eine einen une uma d'un d'une")
NOT_LATIN, NOT_ENGLISH = "is not written in Latin letters", "does not read as English"
SEVERAL = "names several subjects, and only one can be learned at a time"
READ = 200  # words that are read: a model reads 75 tokens
MARKS = ".,;:!?\"“”„«»‘’'…-–—*_~#@|/\\"
POSSESSIVE = re.compile(r"[^\W\d_][\w.-]*(?:['’]s|s['’])")
TWO_NOUNS = re.compile(r"[^\W\d]{3}[/+&,;|]\w{3}")  # `dog/cat`; `AC/DC` and `AT&T` are one name
LOANED = frozenset("àâäåæçéèêëíîïñôöøûüáœß")  # letters of English loanwords: piñata, crème brûlée
BRACKETS = re.compile(r"[\[\]<>{}()［］【】]")


@dataclass(frozen=True)
class Phrase:
    """A class prompt's words. `start` is where its noun phrase begins, after the determiner, and `end` where it ends.

    `doubt` says why that is not certain; "" if it is.
    """

    words: tuple[str, ...]
    start: int
    end: int
    doubt: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether it is certainly not in English."""
        return self.doubt in (NOT_LATIN, NOT_ENGLISH)

    @property
    def noun(self) -> str:
        """The noun phrase: `red dog` in `a photo of a red dog on a beach`; "" if there is none."""
        noun = " ".join(self.words[self.start : self.end]).strip(MARKS + " ")
        return noun if any(letter.isalnum() for letter in noun) else ""


def read_phrase(text: str) -> Phrase:
    """Read a class prompt. If it is in doubt, `start` is the best guess, or the front."""
    whole = tuple(text.split())
    words = whole[:READ]
    plain = [word.casefold().replace("’", "'").strip(MARKS) for word in words]
    first, doubt = _after_frames(plain)
    if not any(letter.isalpha() for letter in text):
        return Phrase(whole, 0, 0, "contains no word")
    foreign = _foreign(text, words, plain)
    if foreign:
        return Phrase(whole, first % len(words), len(words), foreign)
    phrase = _noun_phrase(words, plain, first)
    if not doubt and BRACKETS.search(" ".join(words[: phrase.end])):
        doubt = "has brackets, which only have a meaning in [identifier]"
    return Phrase(whole, phrase.start, phrase.end, doubt or phrase.doubt or _bad_head(plain, phrase, first))


def is_like(word: str, wanted: str) -> bool:
    """Whether a word looks like a misspelled `wanted`."""
    return abs(len(word) - len(wanted)) < 5 and SequenceMatcher(None, word.casefold(), wanted).ratio() > 0.75


def agree(article: str, word: str) -> str:
    """`a` or `an` by the sound of the next word, its capital kept; any other word as it is."""
    if article.lower() not in ("a", "an"):
        return article
    vowel = re.match(r"(?!uni[^mn]|us[eu]|eu|once?\b)[aeiou]|hour|heir|honest", word.lower())
    return article[0] + ("n" if vowel else "")


FILE_NAME = re.compile(r"(?:photo|picture|image|pic)s?[-_]of[-_]")


def _foreign(text: str, words: Sequence[str], plain: Sequence[str]) -> str:
    """Why a text is not in English, as far as its script, its letters and its commonest words show; "" if it may be."""
    if any(unicodedata.category(letter) in ("Cf", "Cc") for word in words for letter in word):
        return "has characters in it that can't be seen"
    letters = [letter for letter in text if letter.isalpha()]
    if not all(letter.isascii() or unicodedata.name(letter, "").startswith("LATIN") for letter in letters):
        return NOT_LATIN
    for place in {0, _after_frames(plain)[0]}:
        # `Los Angeles` and `El Greco` are names
        is_name = all(word[0].isupper() for word in words[place : place + 2])
        if plain[place : place + 1] and plain[place] in OTHER_ARTICLES and len(plain) > place + 1 and not is_name:
            return NOT_ENGLISH
    is_frame_of = any(word in OTHER_OF and before in FRAMES for before, word in zip(plain, words[1:], strict=False))
    if OTHER_LANGUAGES & set(plain) or OTHER_NOUNS & set(plain) or "mit" in words[1:] or is_frame_of:
        return NOT_ENGLISH
    if any(word.islower() and not word.isascii() and not LOANED.issuperset(_beyond_ascii(word)) for word in words):
        return NOT_ENGLISH
    return "looks like a file name" if FILE_NAME.search(text.casefold()) else ""


def _beyond_ascii(word: str) -> Iterator[str]:
    """The letters of a word that are not ASCII, accents composed with their letters."""
    return (letter for letter in unicodedata.normalize("NFC", word) if letter.isalpha() and not letter.isascii())


def _after_frames(plain: Sequence[str]) -> tuple[int, str]:
    """How many words come before the subject ("a close-up photo of"), and a doubt: a painting of something may itself be the subject."""
    first, doubt = 0, ""
    while (end := _frame_end(plain, first)) is not None:
        medium = plain[end - 2]
        if first and medium in ARTWORKS:
            return first, f"does not say whether the {medium} is the subject, or what is in it"
        first = end
    return first, doubt


def _frame_end(plain: Sequence[str], first: int) -> int | None:
    """The place after the "of" of a frame that begins at `first`, None if none does."""
    for place in range(first, len(plain)):
        word = plain[place]
        if word in OF and place > first:
            is_close_up = plain[place - 1] == "up" and place > first + 1 and plain[place - 2] == "close"
            return place + 1 if plain[place - 1] in FRAMES or is_close_up else None
        if word in PREPOSITIONS or word in VERBS:
            return None
    return None


def _noun_phrase(words: tuple[str, ...], plain: Sequence[str], first: int) -> Phrase:
    """The first noun phrase from this place on."""
    start = first
    for place in range(first, len(words)):
        why = _end_at(words, plain, start, place)
        if why is None and place == first:
            why = _no_noun(words[place], plain[place], plain[place + 1 : place + 2])
        if why is not None:
            return _phrase(words, start, place, why)
        if _begins_anew(words, plain, start, place):
            start = place + 1
    return _phrase(words, start, len(words), "")


def _phrase(words: tuple[str, ...], start: int, end: int, doubt: str) -> Phrase:
    return Phrase(words, start, end, doubt) if end > start else Phrase(words, 0, 0, doubt or "names no subject")


def _begins_anew(words: Sequence[str], plain: Sequence[str], start: int, place: int) -> bool:
    """Whether the noun phrase only begins after this word: a determiner, `Anna's`, or the "of" in `a pair of`."""
    word, inside = plain[place], place > start
    if word == "of" and place:
        return plain[place - 1] in (MEASURES if inside else COUNTS)
    if not any(letter.isalnum() for letter in words[place]) and not inside:
        return True
    is_determiner = word in DETERMINERS or word.isdigit()
    if is_determiner and not inside and not _is_of_the_name(plain, place):
        return True
    return POSSESSIVE.fullmatch(words[place]) is not None


def _is_of_the_name(plain: Sequence[str], place: int) -> bool:
    """Whether a word that looks like a count belongs to the noun: `a 35 year old man`, `1967 Ford Mustang`, `a no entry sign`."""
    word, following = plain[place], plain[place + 1 : place + 2]
    is_count = word.isdigit() or word in COUNTS
    after_a = place > 0 and plain[place - 1] in ("a", "an") and (is_count or word in ("no", "every"))
    is_year = re.fullmatch("1[89][0-9][0-9]|20[0-9][0-9]", word) is not None
    return bool(following) and (
        (after_a and word not in ("few", "many")) or (is_count and (is_year or following[0] in UNITS))
    )


def _end_at(words: Sequence[str], plain: Sequence[str], start: int, place: int) -> str | None:
    """None if the word belongs to the phrase that began at `start`. If the phrase ends before it: why that is in doubt, or ""."""
    word, following, inside = plain[place], plain[place + 1] if place + 1 < len(plain) else "", place > start
    if _begins_anew(words, plain, start, place) and not (inside and _ends(words[place - 1], plain[place - 1])):
        return None
    if inside and _ends(words[place - 1], plain[place - 1]) and not _describes(plain[start:place], word):
        return _after_mark(plain, words, place)
    if word in CONJUNCTIONS or TWO_NOUNS.search(word):
        joins = inside and word in ("and", "or", "&") and _describes(plain[start:place], following)
        return None if joins else SEVERAL
    if _is_verb(word, following, inside=inside):
        return f"reads like a sentence: {word!r} is a verb"
    if not inside:
        return "names no subject" if word in STRICT else None
    if word in DETERMINERS and following and word not in RELATIVE:
        return SEVERAL
    if word in PARTICIPLES and following == "and" and plain[place + 2 : place + 3] and _is_participle(plain[place + 2]):
        return ""  # standing and smiling
    if word in RELATIVE or word in SUBJECTS:
        return ""
    if not word:
        return _after_mark(plain, words, place + 1) if following else ""
    return _late_verb(plain[place:]) if _goes_on(word, following) else None


def _no_noun(raw: str, word: str, following: Sequence[str]) -> str | None:
    """Why a text that begins with this word has no subject to learn: `draw a dog`, `me`; None if it may have one."""
    after = following[0] if following else ""
    if word in ORDERS and (after in DETERMINERS or after in PRONOUNS or word == "please"):
        return f"reads like a sentence: {word!r} is a verb"
    if word in PRONOUNS and (len(raw) == 1 or not raw.isupper()):
        return "reads like a sentence" if word in SUBJECTS and after else f"does not say what {word!r} is"
    return None


def _ends(raw: str, word: str) -> bool:
    """Whether a part of the sentence ends with this word: with `dog,` it does, with `Mr.` it does not."""
    return raw[-1] in ",;:.!?" and not (raw[-1] == "." and word in ABBREVIATIONS)


def _is_verb(word: str, following: str, *, inside: bool) -> bool:
    if word in VERBS_OR_NOUNS:
        return inside and not _leads_on(following)
    return word in VERBS or (inside and word in PLURALS_OR_VERBS)


def _goes_on(word: str, following: str) -> bool:
    """Whether a word after a noun starts to say more about it: a preposition or a participle."""
    if word in PREPOSITIONS or word in NAMING or word.startswith("("):
        return True
    if word.endswith("ing") and following in DETERMINERS:  # catching a ball
        return True
    if word in PARTICIPLES or word.endswith("ed"):
        return _leads_on(following)
    return word in WEAK and bool(following) and _leads_on(following)


def _is_participle(word: str) -> bool:
    return word in PARTICIPLES or word.endswith(("ing", "ed"))


def _leads_on(following: str) -> bool:
    """Whether the word before can't describe a noun that follows: the text ends here, or with a preposition or a determiner."""
    return not following or following in PREPOSITIONS or following in WEAK or following in DETERMINERS


def _describes(before: Sequence[str], following: str) -> bool:
    """Whether the phrase so far is adjectives, and another one or the noun comes next: black, white and ..."""
    return all(word in DESCRIPTIONS or word in ("and", "or", "&") for word in before) and bool(
        following and following not in DETERMINERS
    )


def _after_mark(plain: Sequence[str], words: Sequence[str], place: int) -> str:
    """Why what follows a comma may be another subject; "" if it only adds to the first: `a dog, studio lighting`."""
    part = []
    for word, raw in zip(plain[place:], words[place:], strict=True):
        part.append(word)
        if raw[-1] in ",;:.!?":
            break
    alone = part[0] if len(part) == 1 else ""
    is_style = alone in STYLES or alone in DESCRIPTIONS or alone.endswith(("ing", "ed", "ly", "style"))
    says_more = not alone or is_style or any(letter.isdigit() for letter in alone)  # 50mm, f1.8
    if part[0] in CONJUNCTIONS or part[0] in DETERMINERS or POSSESSIVE.fullmatch(words[place]) or not says_more:
        return SEVERAL
    return _late_verb(plain[place:])


def _late_verb(rest: Sequence[str]) -> str:
    """A doubt if a sentence's verb comes after the noun phrase; one that belongs to `that` or `who` does not count."""
    for word in rest:
        if word in RELATIVE:
            break
        if word in ("is", "are", "was", "were", "has", "had"):
            return f"reads like a sentence: {word!r} is a verb"
    return ""


def _bad_head(plain: Sequence[str], phrase: Phrase, first: int) -> str:
    """Why the noun that was found is no subject; "" if it may be."""
    head = plain[phrase.end - 1] if phrase.end else ""
    inner = plain[phrase.start : phrase.end - 1]
    is_artwork = head in ARTWORKS and all(word in DESCRIPTIONS or word in MEDIA for word in inner)  # `an oil painting`
    if not first and not is_artwork and (head in FRAMES or [*inner[-1:], head] == ["close", "up"]):
        if head.endswith("s"):
            return f"names {head}, but not what is in them"
        return f"names {'an' if head[0] in 'aei' else 'a'} {head}, but not what is in it"
    if head in NO_SUBJECT or not phrase.noun:
        return "names no subject"
    if any(is_like(word, "identifier") for word in _parts(plain)):
        return "contains 'identifier' without its brackets"
    return ""


def _parts(plain: Sequence[str]) -> Iterator[str]:
    for word in plain:
        yield from re.findall(r"[^\W_]+", word)
