"""Prompts: where the identifier goes, what stands for it, and what a prompt may be missing."""

from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dreambooth_cli.errors import UsageError
from dreambooth_cli.identifier import rare_tokens
from dreambooth_cli.prompts import (
    PLACEHOLDER,
    check_class_prompt,
    check_identifier,
    check_placeholder,
    class_noun,
    fill,
    instance_prompt,
    plain_class_prompt,
    prompt_remarks,
    proposal,
    understood,
)

WORDS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
IDENTIFIERS = st.from_regex(r"[a-z0-9]{2,8}", fullmatch=True)
CLASS_PROMPTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("class_prompt", "identifier", "expected"),
    [
        ("a photo of a dog", "sks", "a photo of a sks dog"),
        ("a dog", "sks", "a sks dog"),
        ("an owl", "sks", "a sks owl"),
        ("a dog", "inem", "an inem dog"),
        ("An owl", "sks", "A sks owl"),
        ("a photo of the old clock", "uer", "a photo of the uer old clock"),
        ("glasses", "sks", "sks glasses"),
        ("my dog", "sks", "my sks dog"),
        ("a  photo   of a dog ", "sks", "a photo of a sks dog"),
        ("photo of my [identifier] dog on a beach", "sks", "photo of my sks dog on a beach"),
        ("vitamin a", "sks", "sks vitamin a"),
        ("一只狗", "sks", "sks 一只狗"),
    ],
)
def test_instance_prompt(class_prompt: str, identifier: str, expected: str) -> None:
    assert instance_prompt(class_prompt, identifier) == expected


@pytest.mark.parametrize(
    ("class_prompt", "expected"),
    [
        ("a photo of a dog", "a photo of a dog"),
        ("a photo of a [identifier] dog", "a photo of a dog"),
        ("a [identifier] owl", "an owl"),
        ("an [identifier] dog", "a dog"),
        ("An [identifier] unicorn", "A unicorn"),
        ("the [identifier] dog", "the dog"),
        ("[identifier] glasses", "glasses"),
        ("a dog called [identifier]", "a dog called"),
        ("a [identifier]dog", "a dog"),
    ],
)
def test_class_images_are_asked_for_without_the_identifier(class_prompt: str, expected: str) -> None:
    assert plain_class_prompt(class_prompt) == expected


@pytest.mark.parametrize("class_prompt", ["[identifier]", " [identifier] [identifier]"])
def test_a_class_prompt_of_the_placeholder_alone_is_refused(class_prompt: str) -> None:
    with pytest.raises(UsageError) as caught:
        plain_class_prompt(class_prompt)
    assert caught.value.message == "the class prompt says nothing but [identifier]"
    assert caught.value.hint == 'say what the subject is: "a [identifier] dog"'
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("class_prompt", "noun"),
    [
        ("a photo of a dog", "dog"),
        ("a photo of a red dog.", "red dog"),
        ("glasses", "glasses"),
        ("my old bear", "old bear"),
        ("photo of [identifier] dog", "dog"),
        ("a dog [identifier]", "dog"),
    ],
)
def test_class_noun(class_prompt: str, noun: str) -> None:
    assert class_noun(class_prompt) == noun


@pytest.mark.parametrize(
    ("class_prompt", "expected", "noun"),
    [
        ("a photo of a dog", "a photo of a * dog", "dog"),
        ("a photo of dog", "a photo of * dog", "dog"),
        ("photo of a dog", "photo of a * dog", "dog"),
        ("photo of person", "photo of * person", "person"),
        ("a photo of person", "a photo of * person", "person"),
        ("A Photo Of A Dog", "A Photo Of A * Dog", "Dog"),
        ("dog", "* dog", "dog"),
        ("dogs", "* dogs", "dogs"),
        ("two dogs", "two * dogs", "dogs"),
        ("a photo of 2 dogs", "a photo of 2 * dogs", "dogs"),
        ("an owl", "a * owl", "owl"),
        ("the old clock", "the * old clock", "old clock"),
        ("this dog", "this * dog", "dog"),
        ("your dog", "your * dog", "dog"),
        ("a photo of my dog", "a photo of my * dog", "dog"),
        ("Anna's dog", "Anna's * dog", "dog"),
        ("a photo of Anna’s dog", "a photo of Anna’s * dog", "dog"),
        ("my friend's dog", "my friend's * dog", "dog"),
        ("my dogs' bowl", "my dogs' * bowl", "bowl"),
        ("one of my dogs", "one of my * dogs", "dogs"),
        ("a photo of one of my dogs", "a photo of one of my * dogs", "dogs"),
        ("a red dog", "a * red dog", "red dog"),
        ("a black and white dog", "a * black and white dog", "black and white dog"),
        ("a big, fluffy dog", "a * big, fluffy dog", "big, fluffy dog"),
        ("a red leather backpack on a table", "a * red leather backpack on a table", "red leather backpack"),
        ("a woman with a hat", "a * woman with a hat", "woman"),
        ("woman with a hat", "* woman with a hat", "woman"),
        ("a photo of a woman with a hat and a scarf", "a photo of a * woman with a hat and a scarf", "woman"),
        ("a man in a suit on a horse", "a * man in a suit on a horse", "man"),
        ("a dog running on the beach", "a * dog running on the beach", "dog"),
        ("a man wearing glasses", "a * man wearing glasses", "man"),
        ("a woman smiling", "a * woman smiling", "woman"),
        ("a photo of an Italian greyhound sleeping", "a photo of a * Italian greyhound sleeping", "Italian greyhound"),
        ("a bear made of wool", "a * bear made of wool", "bear"),
        ("a mug filled with tea", "a * mug filled with tea", "mug"),
        ("a dog seen from above", "a * dog seen from above", "dog"),
        ("a dog named Rex", "a * dog named Rex", "dog"),
        ("a dog that is brown", "a * dog that is brown", "dog"),
        ("the dog I love", "the * dog I love", "dog"),
        ("a running shoe", "a * running shoe", "running shoe"),
        ("a red running shoe", "a * red running shoe", "red running shoe"),
        ("a wedding ring on a hand", "a * wedding ring on a hand", "wedding ring"),
        ("a painted vase", "a * painted vase", "painted vase"),
        ("a down jacket", "a * down jacket", "down jacket"),
        ("a US flag", "a * US flag", "US flag"),
        ("a gold mine", "a * gold mine", "gold mine"),
        ("a can of soda", "a * can of soda", "can"),
        ("a soda can on a table", "a * soda can on a table", "soda can"),
        ("a cup of coffee", "a * cup of coffee", "cup"),
        ("a photo of a cup of coffee", "a photo of a * cup of coffee", "cup"),
        ("a statue of a lion", "a * statue of a lion", "statue"),
        ("a pair of glasses", "a pair of * glasses", "glasses"),
        ("the face of a man", "the face of a * man", "man"),
        ("a photo of the front of a house", "a photo of the front of a * house", "house"),
        ("a close-up photo of the mug", "a close-up photo of the * mug", "mug"),
        ("close up of a dog", "close up of a * dog", "dog"),
        ("a black and white photo of a dog", "a black and white photo of a * dog", "dog"),
        ("a picture of a close-up of a dog", "a picture of a close-up of a * dog", "dog"),
        ("a portrait of a woman with red hair", "a portrait of a * woman with red hair", "woman"),
        ("an oil painting of a cat", "an oil painting of a * cat", "cat"),
        ("a 3D render of a robot", "a 3D render of a * robot", "robot"),
        ("a front view of a car", "a front view of a * car", "car"),
        ("an image showing a dog", "an image showing a * dog", "dog"),
        ("a photo of a painting", "a photo of a * painting", "painting"),
        ("a dog, high quality", "a * dog, high quality", "dog"),
        ("a photo of a dog, photorealistic", "a photo of a * dog, photorealistic", "dog"),
        ("a dog - studio lighting", "a * dog - studio lighting", "dog"),
        ("a photo of a dog.", "a photo of a * dog.", "dog"),
        ("a photo of \"dog\"", "a photo of * \"dog\"", "dog"),
        ("a dog (golden retriever)", "a * dog (golden retriever)", "dog"),
        ("a 1970s car", "a * 1970s car", "1970s car"),
        ("a van", "a * van", "van"),
        ("John Smith", "* John Smith", "John Smith"),
        ("a photo of Mr. Smith in a suit", "a photo of * Mr. Smith in a suit", "Mr. Smith"),
        ("Los Angeles", "* Los Angeles", "Los Angeles"),
        ("a café", "a * café", "café"),
        ("van gogh style", "* van gogh style", "van gogh style"),
        ("vitamin a", "* vitamin a", "vitamin a"),
        ("a young smiling woman", "a * young smiling woman", "young smiling woman"),
        ("a bowl full of fruit", "a * bowl full of fruit", "bowl"),
        ("a photo of the inside of a car", "a photo of the inside of a * car", "car"),
        ("my dog Rex", "my * dog Rex", "dog Rex"),
        ("- a dog", "- a * dog", "dog"),
        ("a 35 year old man", "a * 35 year old man", "35 year old man"),
        ("my 2 year old girl", "my * 2 year old girl", "2 year old girl"),
        ("a two year old girl", "a * two year old girl", "two year old girl"),
        ("a five pointed star", "a * five pointed star", "five pointed star"),
        ("a few dogs", "a few * dogs", "dogs"),
        ("those three dogs", "those three * dogs", "dogs"),
        ("photo of one cat", "photo of one * cat", "cat"),
        ("a 1967 Ford Mustang", "a * 1967 Ford Mustang", "1967 Ford Mustang"),
        ("the 1967 Ford Mustang", "the * 1967 Ford Mustang", "1967 Ford Mustang"),
        ("a 12\" vinyl record", "a * 12\" vinyl record", "12\" vinyl record"),
        ("a #1 mug", "a * #1 mug", "1 mug"),
        ("the 2 euro coin", "the * 2 euro coin", "2 euro coin"),
        ("a no entry sign", "a * no entry sign", "no entry sign"),
        ("a painting", "a * painting", "painting"),
        ("an oil painting on a wall", "a * oil painting on a wall", "oil painting"),
        ("a dog, dslr", "a * dog, dslr", "dog"),
        ("a mug, 50mm", "a * mug, 50mm", "mug"),
        ("an AT&T phone", "a * AT&T phone", "AT&T phone"),
        ("a woman standing and smiling", "a * woman standing and smiling", "woman"),
        ("a dog catching a frisbee", "a * dog catching a frisbee", "dog"),
        ("closeup portrait photograph of man", "closeup portrait photograph of * man", "man"),
        ("Studio photo of a ceramic mug on a table", "Studio photo of a * ceramic mug on a table", "ceramic mug"),
        ("a crème brûlée", "a * crème brûlée", "crème brûlée"),
        ("a Škoda car", "a * Škoda car", "Škoda car"),
        ("Mon Calamari", "* Mon Calamari", "Mon Calamari"),
        ("photo of a blue wooden door with one window", "photo of a * blue wooden door with one window", "blue wooden door"),
    ],
)
def test_the_identifier_goes_to_the_noun_phrase_that_names_the_subject(
    class_prompt: str, expected: str, noun: str
) -> None:
    check_class_prompt(class_prompt, "sks")
    assert instance_prompt(class_prompt, "sks") == expected.replace("*", "sks")
    assert plain_class_prompt(class_prompt, "sks") == class_prompt
    assert class_noun(class_prompt, "sks") == noun


@pytest.mark.parametrize(
    ("class_prompt", "doubt"),
    [
        ("a dog and a cat", "names several subjects"),
        ("dog and cat", "names several subjects"),
        ("dog, cat", "names several subjects"),
        ("a dog, a cat", "names several subjects"),
        ("a dog/cat", "names several subjects"),
        ("a dog or a cat", "names several subjects"),
        ("a bow and arrow", "names several subjects"),
        ("a dog a cat", "names several subjects"),
        ("my dog is running", "reads like a sentence"),
        ("a woman in a park is running", "reads like a sentence"),
        ("the dog sits on grass", "reads like a sentence"),
        ("a photo of my dog, he is cute", "reads like a sentence"),
        ("I love my dog", "reads like a sentence"),
        ("draw a dog", "reads like a sentence"),
        ("please draw my dog", "reads like a sentence"),
        ("this is my dog", "reads like a sentence"),
        ("一只狗", "is not written in Latin letters"),
        ("a photo of 一只狗", "is not written in Latin letters"),
        ("собака", "is not written in Latin letters"),
        ("a man plays guitar", "reads like a sentence"),
        ("Frau mit Hut", "does not read as English"),
        ("photo_of_dog", "looks like a file name"),
        ("un perro", "does not read as English"),
        ("ein Hund", "does not read as English"),
        ("Le chien", "does not read as English"),
        ("une photo de chien", "does not read as English"),
        ("🐶", "contains no word"),
        ("123", "contains no word"),
        ("a photo of", "names no subject"),
        ("a photo of a", "names no subject"),
        ("a photo of my", "names no subject"),
        ("a", "names no subject"),
        ("with a hat", "names no subject"),
        ("masterpiece, best quality, a dog", "names no subject"),
        ("a photo", "names a photo, but not what is in it"),
        ("image", "names an image, but not what is in it"),
        ("some photos", "names photos, but not what is in them"),
        ("a dog painting", "names a painting, but not what is in it"),
        ("photo de chien", "does not read as English"),
        ("portrait de femme", "does not read as English"),
        ("mon chien", "does not read as English"),
        ("mi perro", "does not read as English"),
        ("hund", "does not read as English"),
        ("mój pies", "does not read as English"),
        ("köpek fotoğrafı", "does not read as English"),
        ("ảnh con chó", "does not read as English"),
        ("retrato de mujer", "does not read as English"),
        ("a\u200bdog", "has characters in it that can't be seen"),
        ("<sks> dog", "has sks in it, which looks like an identifier"),
        ("a photo of TOK dog", "has TOK in it, which looks like an identifier"),
        ("a photo of a S* dog", "has S* in it, which looks like an identifier"),
        ("a photo of a * dog", "has * in it, which looks like an identifier"),
        ("a dog photo", "names a photo, but not what is in it"),
        ("a photo with a dog", "names a photo, but not what is in it"),
        ("a photo taken of my dog", "names a photo, but not what is in it"),
        ("a photo of a painting of a dog", "does not say whether the painting is the subject"),
        ("a photo of me", "does not say what 'me' is"),
        ("a photo of a [dog]", "has brackets"),
        ("a photo of identifier dog", "contains 'identifier' without its brackets"),
        ("a photo of sks dog", "has sks in it, which looks like an identifier"),
        ("a ohwx man", "has ohwx in it, which looks like an identifier"),
    ],
)
def test_a_class_prompt_in_doubt_is_refused_with_what_to_say(class_prompt: str, doubt: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_class_prompt(class_prompt, "auto")
    assert caught.value.message.startswith(f'the class prompt "{class_prompt}" {doubt}')
    assert caught.value.exit_code == 2
    wanted = proposal(class_prompt)
    assert PLACEHOLDER in wanted
    assert f'"{wanted}"' in caught.value.hint
    if "[dog]" not in wanted:
        check_class_prompt(wanted, "auto")


def test_what_is_proposed() -> None:
    assert proposal("a dog and a cat") == "a [identifier] dog and a cat"
    assert proposal("a photo of 一只狗") == "a photo of [identifier] 一只狗"
    assert proposal("a photo of sks dog") == "a photo of [identifier] dog"
    assert proposal("a photo of") == "a photo of a [identifier] dog"


@pytest.mark.parametrize("identifier", ["sks", "auto"])
@pytest.mark.parametrize(
    "class_prompt",
    ["a [identifier] 一只狗", "a [identifier] dog and a cat", "ein <Identifier> Hund", "draw my { identifier } dog"],
)
def test_nothing_is_in_doubt_where_the_place_is_marked(class_prompt: str, identifier: str) -> None:
    check_class_prompt(class_prompt, identifier)


@pytest.mark.parametrize(
    ("class_prompt", "instance", "plain", "noun"),
    [
        ("a photo of sks dog", "a photo of sks dog", "a photo of dog", "dog"),
        ("a photo of a sks owl", "a photo of a sks owl", "a photo of an owl", "owl"),
        ("SKS dog", "SKS dog", "dog", "dog"),
        ("a sks's red dog on a beach", "a sks's red dog on a beach", "a red dog on a beach", "red dog"),
        ("a dog sks", "a dog sks", "a dog", "dog"),
        ("a dog called sks", "a dog called sks", "a dog called", "dog"),
        ("an asks dog", "a sks asks dog", "an asks dog", "asks dog"),
        ("a [identifier] sks dog", "a sks sks dog", "a dog", "dog"),
        ("a sks-dog", "a sks-dog", "a dog", "dog"),
        ("a dog (sks)", "a dog (sks)", "a dog", "dog"),
        ('a "sks" owl', 'a "sks" owl', "an owl", "owl"),
        ("sks, a dog", "sks, a dog", "a dog", "dog"),
        ("photo of sks, a red dog", "photo of sks, a red dog", "photo of a red dog", "red dog"),
        ("dog_sks", "dog_sks", "dog", "dog"),
        ("<sks> dog", "sks dog", "dog", "dog"),
        ("a [sks] owl", "a sks owl", "an owl", "owl"),
        ("a {{sks}} dog", "a sks dog", "a dog", "dog"),
        ("a <|sks|>-dog", "a sks-dog", "a dog", "dog"),
        ("“sks” dog", "“sks” dog", "dog", "dog"),
        ("a *sks* dog", "a *sks* dog", "a dog", "dog"),
        ("sks' dog", "sks' dog", "dog", "dog"),
        ("photo of a dog, sks", "photo of a dog, sks", "photo of a dog", "dog"),
        ("photo of sks,dog", "photo of sks,dog", "photo of dog", "dog"),
        ("a [identifier], [identifier] dog", "a sks, sks dog", "a dog", "dog"),
    ],
)
def test_an_identifier_in_the_class_prompt_is_no_part_of_the_class(
    class_prompt: str, instance: str, plain: str, noun: str
) -> None:
    check_class_prompt(class_prompt, "sks")
    assert instance_prompt(class_prompt, "sks") == instance
    assert plain_class_prompt(class_prompt, "sks") == plain
    assert class_noun(class_prompt, "sks") == noun


@pytest.mark.parametrize(
    ("class_prompt", "identifier"), [("sks", "sks"), ("dog", "dog"), ("a photo of [identifier]", "sks"), ("a sks", "sks")]
)
def test_a_class_is_left_to_draw_images_of(class_prompt: str, identifier: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_class_prompt(class_prompt, identifier)
    assert "say what the subject is" in caught.value.hint


def test_without_class_images_no_class_is_needed() -> None:
    check_class_prompt("a photo of a [identifier]", "sks", with_class_images=False)
    check_class_prompt("a photo of sks", "sks", with_class_images=False)


@pytest.mark.parametrize(
    "spelling",
    [
        "[identifier]", "[Identifier]", "[IDENTIFIER]", "<identifier>", "[ identifier ]", "{identifier}", "{{identifier}}",
        "[[identifier]]", "(identifier)", "${identifier}", r"\[identifier\]", "&lt;identifier&gt;", "［identifier］",
        "[unique identifier]", "<the_identifier>", "[V]", "<v*>",
    ],
)  # fmt: skip
def test_other_spellings_of_the_placeholder_are_understood(spelling: str) -> None:
    assert understood(f"a {spelling} dog") == "a [identifier] dog"
    check_placeholder(f"a {spelling} dog")
    check_class_prompt(f"a photo of a {spelling} owl", "sks")
    assert instance_prompt(f"a photo of a {spelling} owl", "sks") == "a photo of a sks owl"
    assert plain_class_prompt(f"a photo of a {spelling} owl", "sks") == "a photo of an owl"
    assert class_noun(f"a photo of a {spelling} owl") == "owl"
    assert prompt_remarks(f"a {spelling} dog", "ront", "a dog") == []
    with pytest.raises(UsageError, match="marks the identifier's place"):
        check_identifier(spelling)


@pytest.mark.parametrize(
    "slip",
    ["[identifer]", "<indentifier>", "[identifier", "identifier]", "$identifier", "%identifier%", "[name]", "{ token }",
     "[class noun]", "[Identifier name", "(identifiers)", "[identifyer]"],
)  # fmt: skip
def test_a_slip_for_the_placeholder_is_refused(slip: str) -> None:
    told = slip.removesuffix(" name")
    for prompt in (f"a {slip} dog on the moon", f"{slip}, a dog"):
        with pytest.raises(UsageError) as caught:
            check_placeholder(prompt)
        assert caught.value.message == f'"{told}" stands for nothing: write [identifier] where the identifier goes'
        assert caught.value.exit_code == 2
    with pytest.raises(UsageError):
        check_class_prompt(f"a photo of a {slip} dog", "sks")


@pytest.mark.parametrize(
    "prompt", ["a [red] dog", "a (dog:1.2), [blurry]", "<lora:mine:1> dog", "an identity card", "a dog (identical twins)"]
)
def test_other_brackets_in_a_prompt_are_the_users_own(prompt: str) -> None:
    check_placeholder(prompt)
    assert understood(prompt) == prompt


def test_a_rare_word_of_ours_in_a_class_prompt_is_asked_about() -> None:
    with pytest.raises(UsageError, match=f"has {rare_tokens()[0]} in it"):
        check_class_prompt(f"a {rare_tokens()[0]} dog", "auto")


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    class_noun(text)
    instance_prompt(text, "sks")
    assert PLACEHOLDER in proposal(text)
    with suppress(UsageError):
        check_class_prompt(text, "auto")


@pytest.mark.parametrize(
    "prompt",
    ["a [identifier] dog on the moon", "a ront dog", "A RONT DOG", "two ront dogs", "ront, a dog!"],
)
def test_a_prompt_with_identifier_and_class_noun_has_no_remark(prompt: str) -> None:
    assert prompt_remarks(prompt, "ront", "a photo of a dog") == []


@pytest.mark.parametrize(
    ("prompt", "remarks"),
    [
        ("a dog on the moon", ["neither"]),
        ("a [identifier] on the moon", ["class"]),
        ("a [identifier] dogma", ["class"]),
        ("a front dog", ["neither"]),
        ("the moon", ["neither", "class"]),
    ],
)
def test_what_a_prompt_lacks_is_said(prompt: str, remarks: list[str]) -> None:
    words = {
        "neither": "the prompt has neither [identifier] nor ront: your dog will hardly be in the picture",
        "class": "the prompt does not say 'dog', the class it was trained with: the likeness will be weaker",
    }
    assert prompt_remarks(prompt, "ront", "a dog") == [words[remark] for remark in remarks]


def test_remarks_know_scripts_without_spaces_and_models_without_a_class() -> None:
    assert prompt_remarks("月球上的[identifier]小狗", "ront", "狗") == []
    assert prompt_remarks("a [identifier] on the moon", "ront", "") == []
    assert prompt_remarks("the moon", "ront", "") == [
        "the prompt has neither [identifier] nor ront: your subject will hardly be in the picture"
    ]


@given(before=st.text(), after=st.text(), identifier=IDENTIFIERS)
def test_fill_leaves_no_placeholder_and_changes_nothing_else(before: str, after: str, identifier: str) -> None:
    filled = fill(f"{before}{PLACEHOLDER}{after}", identifier)
    assert PLACEHOLDER not in filled
    assert filled == f"{before}{identifier}{after}"


@given(class_prompt=CLASS_PROMPTS, identifier=IDENTIFIERS)
def test_the_instance_prompt_is_the_class_prompt_and_one_word(class_prompt: str, identifier: str) -> None:
    def without_articles(prompt: str) -> list[str]:
        return [word for word in prompt.split() if word not in ("a", "an")]

    assume(identifier not in class_prompt.split())  # else it is there already
    prompt = instance_prompt(class_prompt, identifier)
    assert len(prompt.split()) == len(class_prompt.split()) + 1
    words = without_articles(prompt)
    words.remove(identifier)
    assert words == without_articles(class_prompt)
    assert prompt_remarks(prompt, identifier, class_prompt) == []


@given(class_prompt=CLASS_PROMPTS)
def test_the_plain_class_prompt_has_no_placeholder_and_stays_as_it_is(class_prompt: str) -> None:
    plain = plain_class_prompt(instance_prompt(class_prompt, PLACEHOLDER))
    assert PLACEHOLDER not in plain
    assert plain_class_prompt(plain) == plain
