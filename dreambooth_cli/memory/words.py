"""A plan in words: its means, what it needs, and why it was chosen."""

from ..bases.catalog import BaseFacts
from .ledger import is_counted
from .plan import EIGHT_BIT_ADAM, FOUR_BIT_BASE, Choice, Plan


def means_of(choice: Choice) -> tuple[str, ...]:
    """The means of a choice in words; those that change the results say how."""
    words = {
        EIGHT_BIT_ADAM: choice.optimizer == "adamw8bit",
        "gradient checkpointing": choice.gradient_checkpointing,
        "rows in turn": choice.rows_in_turn,
        "bf16 weights rounded stochastically": choice.weights == "bf16",
        "steps inside backward (no clipping)": choice.inside_backward,
        "optimizer state off the card": choice.off_card,
        "base in fp8": choice.fp8,
        FOUR_BIT_BASE: choice.quantized,
        "text encoder on the CPU": choice.text_off_card,
    }
    return tuple(word for word, is_taken in words.items() if is_taken)


def why_of(plan: Plan, facts: BaseFacts) -> str:
    """What a plan needs and for what; without a GPU it says so first."""
    if plan.free is not None:
        return needs_of(plan, facts)
    words, about = words_of(plan, encoders=len(facts.text_encoders)), "" if is_counted(facts) else "about "
    return f"no GPU: {words}, on the CPU; needs {about}{gb(plan.ram_needed)} GB of the machine's memory"


def needs_of(plan: Plan, facts: BaseFacts) -> str:
    """What a plan needs and for what: `needs 11.1 of 12.0 GB free: full fine-tuning...`."""
    words, about = words_of(plan, encoders=len(facts.text_encoders)), "" if is_counted(facts) else "about "
    if plan.free is None:
        return f"needs {about}{gb(plan.ram_needed)} GB of the machine's memory: {words}"
    if plan.needed > plan.free:
        return f"needs {about}{gb(plan.needed)} GB, more than the {gb(plan.free)} GB free: {words}"
    short = "" if plan.fits else f"; and {about}{gb(plan.ram_needed)} GB of the machine's memory, more than it has"
    return f"needs {about}{gb(plan.needed)} of {gb(plan.free)} GB free: {words}{short}"


def words_of(plan: Plan, *, encoders: int = 1) -> str:
    """What is trained, and by which means: `LoRA with the text encoder, bf16, gradient checkpointing`."""
    method = "full fine-tuning" if plan.method == "full" else "LoRA"
    text = f" with the text encoder{'s' if encoders > 1 else ''}" if plan.train_text_encoder else ""
    return ", ".join([method + text, plan.precision, *plan.means])


def gb(count: int) -> str:
    """Bytes as GB with one decimal: `11.1`."""
    return f"{count / 1e9:.1f}"
