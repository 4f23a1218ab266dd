"""The identifier: the table of rare words, the choice from a base's own vocabulary, and what is said about a bad one."""

import json
import re
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from dreambooth_cli.errors import LibraryRefused, ModelUnavailable
from dreambooth_cli.identifier import (
    choose_identifier,
    clip_tokenizer,
    identifier_remarks,
    invented_words,
    length_remarks,
    load_tokenizer,
    pieces,
    rare_tokens,
    single_token,
)
from tests.benchmarks import rare_tokens as made

CLIP = Path(__file__).parents[2] / "shared" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
FILLERS = tuple(
    f"{first}{second}" for first in "BCDFGHJKLM" for second in "BCDFGHJKLM"
)  # never met: text is lowercased


def write_base(folder: Path, common: tuple[str, ...], rare: tuple[str, ...]) -> Path:
    """Write a diffusers folder's tokenizer whose words are single tokens, `common` ones before a hundred others, `rare` ones after."""
    letters = made.byte_letters()
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[str] = []
    for word in (*common, *FILLERS, *rare):
        left, *others = [*word[:-1], word[-1] + "</w>"]
        for right in others:
            if left + right not in vocabulary:
                vocabulary.append(left + right)
                merges.append(f"{left} {right}")
            left += right
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    ids = {token: number for number, token in enumerate([*vocabulary, "<|startoftext|>", "<|endoftext|>"])}
    (tokenizer / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (tokenizer / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", common=("dog", "ghue"), rare=("sks", "ront", "uer"))


def test_a_tokenizers_package_that_does_not_fit_is_no_broken_base(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's parts are looked up only when they are used."""
    monkeypatch.delattr("tokenizers.normalizers")
    monkeypatch.setitem(sys.modules, "tokenizers.normalizers", None)
    with pytest.raises(LibraryRefused, match="tokenizers"):
        load_tokenizer(base)


def test_a_vocabulary_larger_than_any_true_one_is_not_read(base: Path) -> None:
    with (base / "tokenizer" / "tokenizer.json").open("w") as file:
        file.truncate(40_000_000)
    with pytest.raises(ModelUnavailable, match=r"tokenizer\.json has 40,000,000 bytes"):
        load_tokenizer(base)


def test_the_table_holds_a_hundred_short_words_once_each() -> None:
    table = rare_tokens()
    assert len(table) >= 100
    assert len(set(table)) == len(table)
    assert all(re.fullmatch(r"[a-z]{3,4}", word) for word in table)
    assert not set(table) & set(made.verdicts())


def test_without_a_base_the_identifier_is_the_rarest_of_the_table(tmp_path: Path) -> None:
    assert choose_identifier(None) == ("ront", None)
    assert choose_identifier(load_tokenizer(tmp_path / "checkpoint.safetensors")) == ("ront", None)


def test_the_rarest_word_of_the_base_s_own_vocabulary_is_chosen(base: Path) -> None:
    assert choose_identifier(load_tokenizer(base)) == ("uer", None)


def test_a_saved_tokenizer_that_pads_is_read_alike(base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base)
    assert tokenizer is not None
    tokenizer.enable_padding(length=77, pad_token="<|endoftext|>")
    folder = tmp_path / "saved" / "tokenizer_2"
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert choose_identifier(load_tokenizer(tmp_path / "saved")) == ("uer", None)
    assert identifier_remarks("ront", load_tokenizer(tmp_path / "saved")) == []


def test_where_a_vocabulary_has_no_rare_word_sks_is_used_and_said(tmp_path: Path) -> None:
    identifier, note = choose_identifier(load_tokenizer(write_base(tmp_path, common=("dog",), rare=("sks",))))
    assert identifier == "sks"
    assert note == (
        "none of the rare words is a single token of this base model: using sks, which is also a rifle; "
        "choose another with --identifier"
    )


def test_a_rare_single_token_has_no_remark(base: Path) -> None:
    assert identifier_remarks("ront", load_tokenizer(base)) == []
    assert identifier_remarks("RONT", load_tokenizer(base)) == []


def test_a_word_that_splits_is_warned_about_with_its_pieces(base: Path) -> None:
    assert identifier_remarks("Dogront", load_tokenizer(base)) == [
        "Dogront splits into Do + g + ront: what these pieces mean to the model mixes into the subject; "
        "a word that is one token is learned better, for example uer"
    ]
    assert identifier_remarks("ront-uer", load_tokenizer(base))[0].startswith("ront-uer splits into ront + - + uer: ")


def test_a_common_word_is_warned_about_with_its_rank(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    assert tokenizer is not None
    size = tokenizer.get_vocab_size()
    assert identifier_remarks("dog", load_tokenizer(base)) == [
        f"dog is a common word that already means something to the model (number 514 of {size}, commonest first): "
        "the subject has to overcome that; a rare word is easier, for example uer"
    ]


def test_a_warning_names_no_example_where_the_vocabulary_has_none(tmp_path: Path) -> None:
    remarks = identifier_remarks("zxqy", load_tokenizer(write_base(tmp_path, common=("dog",), rare=())))
    assert len(remarks) == 1
    assert remarks[0].endswith("a word that is one token is learned better")


def test_sks_is_a_rifle_with_and_without_a_base(base: Path) -> None:
    rifle = "sks is also a rifle, which the base model may know: a rifle can turn up in the pictures"
    assert identifier_remarks("sks", None) == [rifle]
    assert identifier_remarks("sks", load_tokenizer(base)) == [rifle]
    assert identifier_remarks("zxqy", None) == []


@pytest.mark.parametrize(("word", "why"), [("rex", "is a name"), ("Emma", "is a name"), ("table", "is a common word")])
def test_a_language_model_s_words_are_judged_before_it_is_fetched(word: str, why: str) -> None:
    (remark,) = identifier_remarks(word, None, by_rarity=False)
    assert remark.startswith(f"{word} {why}, so it already means something; better, for example, ")
    assert not any(identifier_remarks(one, None, by_rarity=False) for one in invented_words())


def test_a_character_that_is_several_pieces_is_not_repeated() -> None:
    assert identifier_remarks("狗", clip_tokenizer())[0].startswith("狗 splits into 3 pieces: ")


def test_a_word_of_letters_that_the_vocabulary_lacks_is_unknown(tmp_path: Path) -> None:
    folder = write_base(tmp_path, common=("dog",), rare=("ront",))
    file = folder / "tokenizer" / "vocab.json"
    ids = {token: number for token, number in json.loads(file.read_text("utf-8")).items() if not token.startswith("x")}
    file.write_text(json.dumps(ids), encoding="utf-8")
    assert identifier_remarks("x", load_tokenizer(folder)) == ["x is unknown to the base model: choose another, for example ront"]


@pytest.mark.parametrize(
    ("file", "text"), [("vocab.json", "{not json"), ("tokenizer.json", "{}"), ("merges.txt", "ab")]
)
def test_a_broken_tokenizer_is_an_error_that_names_its_folder(base: Path, file: str, text: str) -> None:
    (base / "tokenizer" / file).write_text(text)
    with pytest.raises(ModelUnavailable) as caught:
        choose_identifier(load_tokenizer(base))
    assert caught.value.message.startswith(f"the tokenizer in {base / 'tokenizer'} can't be read: ")
    assert caught.value.hint == "fetch the base model again"
    assert caught.value.exit_code == 5


def test_pieces_are_spelled_as_in_the_word(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    assert tokenizer is not None
    assert "".join(pieces(tokenizer, "Zxqy7ront")) == "Zxqy7ront"
    assert single_token(tokenizer, "Zxqy7ront") is None


@pytest.fixture(scope="module")
def clip_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = made.read_vocabulary(CLIP)
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tokenizer").mkdir()
    ids = {token: number for number, token in enumerate(vocabulary)}
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    merges = made.read_merges(CLIP)
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges), encoding="utf-8")
    assert isinstance(load_tokenizer(folder), Tokenizer)
    return folder


@pytest.mark.skipif(not CLIP.is_file(), reason="CLIP's own vocabulary is not beside this checkout")
class TestWithTheVocabularyOfClip:
    def test_the_table_is_what_its_script_makes(self) -> None:
        vocabulary = made.read_vocabulary(CLIP)
        assert len(vocabulary) == 49_408
        assert tuple(made.table(vocabulary)) == rare_tokens()
        assert set(made.verdicts()) <= set(made.candidates(vocabulary))

    def test_each_word_of_the_table_is_one_token_and_the_rarest_is_chosen(self, clip_base: Path) -> None:
        tokenizer = load_tokenizer(clip_base)
        assert tokenizer is not None
        ranks = [single_token(tokenizer, word) for word in rare_tokens()]
        assert None not in ranks
        assert ranks == sorted(ranks, key=lambda rank: -(rank or 0))
        assert choose_identifier(load_tokenizer(clip_base)) == ("ront", None)
        assert all(identifier_remarks(word, tokenizer) == [] for word in ("ront", "uer"))

    def test_what_is_said_of_words_as_clip_reads_them(self, clip_base: Path) -> None:
        assert identifier_remarks("zxqy", load_tokenizer(clip_base))[0].startswith("zxqy splits into z + x + q + y: ")
        assert "number 1,930 of 49,408" in identifier_remarks("dog", load_tokenizer(clip_base))[0]
        assert "number 22,549 of 49,408" in identifier_remarks("zebra", load_tokenizer(clip_base))[0]


def test_what_of_a_long_prompt_is_cut_is_said(base: Path) -> None:
    fits, long = " ".join(["dog"] * 75), " ".join(["dog"] * 75 + ["ront", "uer"])
    assert length_remarks([fits], load_tokenizer(base)) == []
    (remark,) = length_remarks([fits, long, long], load_tokenizer(base))
    assert remark.startswith('the prompt "dog dog')
    assert remark.endswith('is longer than the 77 tokens that the model reads; cut off: "ront uer"')
    assert length_remarks([long], None) == []


def test_a_prompt_of_ten_thousand_words_is_said_in_few(base: Path) -> None:
    (remark,) = length_remarks(["dog " * 10_000], load_tokenizer(base))
    assert len(remark) < 500
    assert "(39,700 characters)" in remark


def test_a_saved_tokenizer_that_cuts_is_asked_for_all(base: Path, tmp_path: Path) -> None:
    read = load_tokenizer(base)
    assert read is not None
    tokenizer = type(read).from_str(read.to_str())  # the one that was read is everybody's
    tokenizer.enable_truncation(60)
    (tmp_path / "saved" / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(tmp_path / "saved" / "tokenizer" / "tokenizer.json"))
    long = ["dog " * 100]
    assert length_remarks(long, load_tokenizer(tmp_path / "saved")) == length_remarks(long, load_tokenizer(base)) != []
