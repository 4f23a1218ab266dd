"""The identifier: the rare word that comes to mean the subject (section 3.2 of the DreamBooth paper).

It should be one token of the base model's own vocabulary and mean nothing yet. A token's rank there tells how rare it is, because
byte-pair merges are learned commonest first. The table beside this file was made from CLIP's vocabulary, which all base models with a
CLIP text encoder share; its merges are in `clip/` (OpenAI's, MIT), so that a word can be judged before a base is fetched.

For a language model no word is rare: it splits what it does not know and reads the pieces. There the identifier is an invented word of
two or three pieces, from another list.
"""

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from .bases.fingerprint import MOST_VOCABULARY
from .disk import read_text
from .errors import ModelUnavailable
from .libraries import refusal_of
from .phrase import word_set
from .text import shortened

AnyTokenizer = Any  # a tokenizers.Tokenizer; that package is loaded only when a base on disk is read
FALLBACK = "sks"
TABLE = Path(__file__).with_name("rare_tokens.txt")
INVENTED = Path(__file__).with_name("invented_words.txt")
FEWEST_PIECES, MOST_PIECES = 2, 3  # of an invented word
NAMES = Path(__file__).with_name("names.txt")
CLIP_MERGES = Path(__file__).parent / "clip" / "merges.txt.gz"
START = "<|startoftext|>"
WORD_END = "</w>"  # CLIP's mark on the last piece of a word
UNKNOWN = "<|endoftext|>"
READ = 77  # tokens of a prompt, with its two ends, that CLIP's text encoders read
RAREST = 0.9  # tokens outside the rarest tenth of a vocabulary count as common: `zebra` is number 22,549 of CLIP's 49,408
# What Qwen splits a text into before it merges: words with the space or sign in front of them, single digits, runs of signs, spaces.
QWEN_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What CLIP splits a text into before it merges: words, single digits, runs of signs.
CLIP_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def invented_words() -> tuple[str, ...]:
    """The package's list of invented words, in the order in which they are tried."""
    return _lines_of(INVENTED)


def _lines_of(table: Path) -> tuple[str, ...]:
    lines = table.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def rare_tokens() -> tuple[str, ...]:
    """The package's table of rare words, rarest first."""
    return _lines_of(TABLE)


@dataclass(frozen=True)
class Candidate:
    """A word that may become the identifier, and a few words on how it splits and how rare it is."""

    word: str
    told: str


def candidates(tokenizer: AnyTokenizer | None, count: int, *, avoid: str = "", by_rarity: bool = True) -> list[Candidate]:
    """Words against which nothing speaks, best first, without those in the text `avoid`. For a base that reads with a language model
    (not `by_rarity`) they are invented words; without its tokenizer, nothing can be said about how they split."""
    taken = {word.casefold() for word in avoid.split()}
    if not by_rarity:
        words = [word for word in invented_words() if word not in taken and not invented_remarks(word, tokenizer)][:count]
        return [Candidate(word, "invented" + (f": {' + '.join(pieces_in_prompt(tokenizer, word))}" if tokenizer else "")) for word in words]
    size = tokenizer.get_vocab_size() if tokenizer else 0
    ranks = {word: rank for word in rare_tokens() if word not in taken and (rank := single_token(tokenizer, word)) is not None}
    best = sorted((word for word in ranks if not identifier_remarks(word, tokenizer)), key=ranks.__getitem__, reverse=True)
    return [Candidate(word, f"one piece; of {size:,} pieces only {size - ranks[word] - 1:,} are rarer") for word in best[:count]]


@cache
def names() -> frozenset[str]:
    """The package's table of names of people and animals, in lower case."""
    return word_set(NAMES.read_text(encoding="utf-8"))


def byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in vocabularies of bytes: the printable ones first, which stand for themselves."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


@cache
def clip_tokenizer() -> AnyTokenizer:
    """The tokenizer of CLIP's own 49,408 tokens."""
    lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(left, right) for left, right in (line.split(" ") for line in lines)]
    letters = byte_letters()
    tokens = [*letters, *(letter + WORD_END for letter in letters), *(left + right for left, right in merges), START, UNKNOWN]
    return _clip_like({token: rank for rank, token in enumerate(tokens)}, merges)


def choose_identifier(tokenizer: AnyTokenizer | None, *, by_rarity: bool = True) -> tuple[str, str | None]:
    """The rarest word that is one token of the base model, and a note if there is none and `sks` has to do. If not `by_rarity`: the first
    invented word that splits into the right number of pieces, and a note if it is only the nearest to that.

    Without a tokenizer it is the first word of the table.
    """
    if tokenizer is None:
        return (rare_tokens() if by_rarity else invented_words())[0], None
    if not by_rarity:
        return _choose_invented(tokenizer)
    rarest = _rarest(tokenizer)
    if rarest:
        return rarest, None
    note = (
        f"none of the rare words is a single token of this base model: using {FALLBACK}, which is also a rifle; "
        "choose another with --identifier"
    )
    return FALLBACK, note


def _choose_invented(tokenizer: AnyTokenizer) -> tuple[str, str | None]:
    counts = {word: len(pieces_in_prompt(tokenizer, word)) for word in invented_words()}
    word = min(counts, key=lambda word: max(FEWEST_PIECES - counts[word], counts[word] - MOST_PIECES, 0))
    if FEWEST_PIECES <= counts[word] <= MOST_PIECES:
        return word, None
    return word, (
        f"none of the invented words is {FEWEST_PIECES} or {MOST_PIECES} pieces in this base model's vocabulary: using {word}, the "
        f"nearest, which is {counts[word]}; choose another with --identifier"
    )


def invented_remarks(identifier: str, tokenizer: AnyTokenizer | None) -> list[str]:
    """What speaks against an identifier that a language model reads: it is a name, already means something, has other characters than
    letters, or splits into too many pieces. Without the model's tokenizer, the words that it knows are judged by CLIP's."""
    remarks, known = [], f"so it already means something; better, for example, {invented_words()[0]}"
    if identifier.casefold() in names():
        remarks.append(f"{identifier} is a name, {known}")
    if identifier.lower() == FALLBACK:
        remarks.append(
            f"{identifier} is a rifle, and not a rare word to a language model, which reads it like any other: a rifle can turn up in "
            f"the pictures; an invented word is better, for example {invented_words()[0]}"
        )
    if not identifier.isalpha():
        remarks.append(f"{identifier} has digits or signs in it, which are read one by one; better, for example, {invented_words()[0]}")
    if remarks:
        return remarks
    if tokenizer is None:
        return [f"{identifier} is a common word, {known}"] if _is_common(identifier, clip_tokenizer()) else []
    parts = pieces_in_prompt(tokenizer, identifier)
    if len(parts) < FEWEST_PIECES:
        return [f"{identifier} is a word that the model knows, {known}"]
    better = _choose_invented(tokenizer)[0]
    if len(parts) > max(MOST_PIECES, len(pieces_in_prompt(tokenizer, better))):  # else there is no better one
        return [
            f"{identifier} splits into {len(parts)} pieces ({' + '.join(parts)}): a word of {FEWEST_PIECES} or {MOST_PIECES} is learned "
            f"better, for example {better}"
        ]
    return []


def pieces_in_prompt(tokenizer: AnyTokenizer, word: str) -> list[str]:
    """What a word splits into within a sentence, behind a space."""
    encoding = tokenizer.encode(f" {word}", add_special_tokens=False)
    return [part for start, end in encoding.offsets if (part := f" {word}"[start:end].strip())]


def identifier_remarks(identifier: str, tokenizer: AnyTokenizer | None, *, by_rarity: bool = True) -> list[str]:
    """What speaks against an identifier, one line for each point: it is a rifle, a name, a common word, or splits into pieces. If not
    `by_rarity`: what speaks against it for a language model.

    Without a tokenizer, only what needs no vocabulary.
    """
    if not by_rarity:
        return invented_remarks(identifier, tokenizer)
    remarks = []
    if identifier.casefold() in names():
        remarks.append(
            f"{identifier} is a name: the model may know others with that name, and they mix into the subject; "
            f"a word that means nothing yet is learned better{_example(tokenizer) if tokenizer is not None else ''}"
        )
    if identifier.lower() == FALLBACK:
        remarks.append(
            f"{identifier} is also a rifle, which the base model may know: a rifle can turn up in the pictures"
        )
    if tokenizer is None:
        return remarks
    rank = single_token(tokenizer, identifier)
    if rank is None:
        remarks.append(_describe_split(identifier, tokenizer))
    elif _is_common(identifier, tokenizer) and identifier.casefold() not in names():
        remarks.append(
            f"{identifier} is a common word that already means something to the model "
            f"(number {rank + 1:,} of {tokenizer.get_vocab_size():,}, commonest first): the subject has to overcome that; "
            f"a rare word is easier{_example(tokenizer)}"
        )
    return remarks


def length_remarks(prompts: Iterable[str], tokenizer: AnyTokenizer | None, *, most: int = READ, frame: int = 2) -> list[str]:
    """A line for each prompt that is longer than the `most` tokens that the base model reads, with the part that is cut off; none without
    a tokenizer."""
    remarks = []
    for prompt in dict.fromkeys(prompts):
        if tokenizer is not None and (part := unread_part(prompt, tokenizer, most=most, frame=frame)):
            remarks.append(
                f'the prompt "{shortened(prompt, 40)}" is longer than the {most} tokens that the model reads; '
                f'cut off: "{shortened(part)}"'
            )
    return remarks


def unread_part(prompt: str, tokenizer: AnyTokenizer, *, most: int = READ, frame: int = 2) -> str:
    """The part of a prompt that the base model does not read: everything beyond its `most` tokens, `frame` of which are taken by the
    prompt's two ends, or by the chat around it."""
    offsets = tokenizer.encode(prompt, add_special_tokens=False).offsets
    return prompt[offsets[most - frame][0] :] if len(offsets) > most - frame else ""


def load_tokenizer(base_folder: Path | None) -> AnyTokenizer | None:
    """The tokenizer in a base's folder (the two of an XL base share one vocabulary); None if there is none on disk, or for a single file.

    Raises ModelUnavailable if its files are broken, LibraryRefused if a library refuses another's version.
    """
    for name in ("tokenizer", "tokenizer_2"):
        folder = base_folder / name if base_folder else None
        if folder is None or not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            continue
        try:
            return _read_tokenizer(folder, _stamps(folder))
        except Exception as error:  # the tokenizers package raises bare Exception for a broken file
            if (versions := refusal_of(error)) is not None:
                raise versions from error
            raise ModelUnavailable(
                f"the tokenizer in {folder} can't be read: {error}", "fetch the base model again"
            ) from error
    return None


def single_token(tokenizer: AnyTokenizer, word: str) -> int | None:
    """The rank of a word that is one token (0 is the commonest), None if it splits or is unknown."""
    encoding = tokenizer.encode(word, add_special_tokens=False)
    known = len(encoding.ids) == 1 and encoding.tokens[0] not in (UNKNOWN, _unknown_token(tokenizer))
    return int(encoding.ids[0]) if known else None


def _is_common(word: str, tokenizer: AnyTokenizer) -> bool:
    rank = single_token(tokenizer, word)
    return rank is not None and rank < RAREST * tokenizer.get_vocab_size()


def pieces(tokenizer: AnyTokenizer, word: str) -> list[str]:
    """What a word splits into, as spelled in the word."""
    encoding = tokenizer.encode(word, add_special_tokens=False)
    return [word[start:end] for start, end in encoding.offsets]


def _stamps(folder: Path) -> tuple[tuple[int, int], ...]:
    """When each file of a tokenizer was written, in ns, and its size in bytes."""
    there = [found.stat() for name in ("tokenizer.json", "vocab.json", "merges.txt") if (found := folder / name).is_file()]
    return tuple((one.st_mtime_ns, one.st_size) for one in there)


@lru_cache(maxsize=2)  # a command asks for it several times, and reading it takes a quarter of a second
def _read_tokenizer(folder: Path, stamps: tuple[tuple[int, int], ...]) -> AnyTokenizer:
    """The tokenizer in a folder; `stamps` make the cache notice changed files."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_str(_text_of(folder / "tokenizer.json"))
        tokenizer.no_padding()  # a saved tokenizer may pad each text to 77 tokens, or cut it there
        tokenizer.no_truncation()
        return tokenizer
    vocabulary, lines = json.loads(_text_of(folder / "vocab.json")), _text_of(folder / "merges.txt").split("\n")
    pairs = (line.split() for line in lines if line.strip() and not line.startswith("#version"))
    merges = [(left, right) for left, right in pairs]
    is_clip = any(token.endswith(WORD_END) for token in vocabulary)
    return _clip_like(vocabulary, merges) if is_clip else _qwen_like(vocabulary, merges)


def _qwen_like(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> AnyTokenizer:
    """A tokenizer that splits words as Qwen's does, without its marks."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN_WORD), "isolated"), byte_level])
    return tokenizer


def _clip_like(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> AnyTokenizer:
    """A tokenizer that splits words as CLIP's does."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=WORD_END, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(CLIP_WORD), "removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


def _text_of(file: Path) -> str:
    """The text of a tokenizer's file. Raises OSError, ValueError where it is larger than any true one."""
    if (size := file.stat().st_size) > MOST_VOCABULARY:
        raise ValueError(f"{file.name} has {size:,} bytes, more than any true one")
    return read_text(file)


def _unknown_token(tokenizer: AnyTokenizer) -> str | None:
    unknown: str | None = getattr(tokenizer.model, "unk_token", None)
    return unknown


def _rarest(tokenizer: AnyTokenizer) -> str | None:
    ranks = {word: rank for word in rare_tokens() if (rank := single_token(tokenizer, word)) is not None}
    return max(ranks, key=ranks.__getitem__, default=None)


def _describe_split(identifier: str, tokenizer: AnyTokenizer) -> str:
    parts = pieces(tokenizer, identifier)
    if len(parts) < 2:
        return f"{identifier} is unknown to the base model: choose another{_example(tokenizer)}"
    told = " + ".join(parts) if "".join(parts) == identifier else f"{len(parts)} pieces"  # a Chinese character may be several
    return (
        f"{identifier} splits into {told}: what these pieces mean to the model mixes into the subject; "
        f"a word that is one token is learned better{_example(tokenizer)}"
    )


def _example(tokenizer: AnyTokenizer) -> str:
    rarest = _rarest(tokenizer)
    return f", for example {rarest}" if rarest else ""
