"""Qwen3 as a text encoder: the language model that the newer families read prompts with."""

from .family import Part
from .part_config import QWEN3

QWEN3_4B = 4_022_468_096  # parameters without a head, counted from its config
QWEN3_4B_SIZE = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000,
    "tie_word_embeddings": True,
}
TOKENIZER_PART = Part(classes=("Qwen2Tokenizer", "Qwen2TokenizerFast"))
START, END = "<|im_start|>", "<|im_end|>"
# The user's message and the beginning of the answer, as the model's own chat template writes them; that one is a program, which is never
# run. With CHAT the answer may begin with thoughts, with CHAT_WITHOUT_THOUGHT it has none. Written as expressions, since a newline at the
# end of a template would be dropped.
_MESSAGES = f"{{% for each in messages %}}{{{{ '{START}' + each.role + '\\n' + each.content + '{END}\\n' }}}}{{% endfor %}}"
CHAT = f"{_MESSAGES}{{{{ '{START}assistant\\n' }}}}"
CHAT_WITHOUT_THOUGHT = f"{CHAT}{{{{ '<think>\\n\\n</think>\\n\\n' }}}}"
FRAME, FRAME_WITHOUT_THOUGHT = 8, 12  # tokens that these add to the prompt's own


def text_encoder_part(*classes: str, layers: int = 0) -> Part:
    """Qwen3 under these class names, built without a head; `layers`: how many of its layers are read (0: all)."""
    return Part(classes=classes, config=QWEN3, built="Qwen3Model", layers=layers)
