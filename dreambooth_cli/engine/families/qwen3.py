"""How Qwen3 reads prompts for the families whose text encoder it is."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...families.qwen3 import END, START


def tokens_of(tokenizer: Any, prompts: Sequence[str], *, most: int, padded: bool) -> tuple[Tensor, Tensor]:
    """The tokens [B, T] of prompts in the tokenizer's chat template, int64, and a mask [B, T] of those that are not padding. T is `most`
    if `padded`, otherwise the length of the longest prompt, at most `most`."""
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    padding = "max_length" if padded else True
    made = tokenizer(texts, padding=padding, max_length=most, truncation=True, return_tensors="pt")
    return made.input_ids, made.attention_mask


def use_chat(tokenizer: Any, chat: str) -> None:
    """Give a tokenizer our own chat template. Raises ValueError if it does not know the template's marks as single tokens."""
    if tokenizer is None:  # not loaded
        return
    tokenizer.chat_template = chat
    if any(len(tokenizer(mark, add_special_tokens=False).input_ids) != 1 for mark in (START, END)):
        raise ValueError(f"its tokenizer does not know {START} and {END}, between which a prompt stands")
