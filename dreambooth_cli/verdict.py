"""What a run has made of its base, judging by what was measured before and after: a word, sentences, figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from typing import Any, Literal

# Below both, nothing shows; each stands about three times or more from what was measured on either side, 50 steps. At a rate of 1e-7:
# on pocket 0.6% of the picture and 0.06% of the loss, on a small base of random weights 5.1% and 0.18% (torch 2.13.0 and 2.14.1
# alike). At 1e-6: 43% and 0.5%, 39% and 1.7%. At 1e-5: 49% and 1.8%, 91% and 11%.
LEAST_PICTURE, LEAST_LOSS = 0.15, 0.01
COPY = 0.95  # correlation of pixels from which on a picture is a photo again to the eye (tests/benchmarks/fidelity.md)
# How far the two prompts' losses must lie apart at the end. On pocket, subject 3 of the benchmark's: 0.226 as it trains by itself (pictures
# of the class were .03 like the subject), 0.004 without class images (.86, the class was gone).
APART = 0.05

Word = Literal["learned", "barely", "copies"]
OfClass = Literal["kept", "drifting"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured before and after training: `loss` and `class_loss`, the photos' loss at fixed noises with the instance prompt and
    with the class prompt; `picture` and `class_picture`, how much each prompt's picture from one seed has changed, relative to the one
    before (root mean square of latents; √2 for pictures with nothing in common); `copied`, the correlation of the sample that is most like
    a photo (None: none was drawn), and `nearest`, that photo; `foreign`, the loss before training from which on photos show nothing that
    the base knows (None: it knows more than a few things)."""

    loss: tuple[float, float]
    class_loss: tuple[float, float]
    picture: float
    class_picture: float
    copied: float | None = None
    nearest: str = ""
    foreign: float | None = None

    def told(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def fallen(self) -> float:
        """The share by which the loss has fallen."""
        return (self.loss[0] - self.loss[1]) / self.loss[0]

    @property
    def class_fallen(self) -> float:
        """The share by which the loss with the class prompt has fallen."""
        return (self.class_loss[0] - self.class_loss[1]) / self.class_loss[0]

    @property
    def apart(self) -> float:
        """How much higher the photos' loss is with the class prompt, relative to what fell or to what is left with the instance prompt,
        whichever is less: 0 if the class means the photos as much as the identifier does."""
        part = min(self.loss[0] - self.loss[1], self.loss[1])
        return (self.class_loss[1] - self.loss[1]) / part if part > 0 else inf

    @property
    def is_foreign(self) -> bool:
        """Whether the photos show nothing that the base knows."""
        return self.foreign is not None and self.loss[0] >= self.foreign

    @property
    def shows(self) -> bool:
        """Whether a person would see that something was learned."""
        return self.picture >= LEAST_PICTURE or self.fallen >= LEAST_LOSS


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A run's verdict: a word on the subject and one on the class, and sentences with the figures."""

    word: Word
    of_class: OfClass
    sentences: tuple[str, ...]


def judge(figures: Figures) -> Verdict:
    """The verdict on what was measured."""
    word: Word = "learned" if figures.shows and not figures.is_foreign else "barely"
    if figures.copied is not None and figures.copied >= COPY:
        word = "copies"
    drifts = figures.shows and figures.class_fallen >= LEAST_LOSS and figures.apart < APART
    return Verdict(
        word=word,
        of_class="drifting" if drifts else "kept",
        sentences=(_of_subject(word, figures), _of_class(drifts, figures)),
    )


def sentences_of(told: Mapping[str, Any]) -> tuple[str, ...]:
    """The verdict's sentences once more, of figures as JSON has them, for people who have not the photos: none is named."""
    known: dict[str, Any] = {item.name: told[item.name] for item in fields(Figures) if item.name in told}
    known |= {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
    return judge(replace(Figures(**known), nearest="one of its photos")).sentences


def _of_subject(word: Word, figures: Figures) -> str:
    same_seed = f"the picture from the same seed has changed by {figures.picture:.0%} (unrelated pictures: about 140%)"
    measured = f"at the same noise the loss on the photos {_moved(figures.loss)}, and {same_seed}"
    if word == "copies":
        return (
            f"It copies its photos: a sample repeats {figures.nearest} (their pixels correlate by {figures.copied:.2f}). "
            "An earlier checkpoint, fewer --steps or a lower --learning-rate keep more of the base."
        )
    if word == "barely" and figures.is_foreign:
        return (
            "It has hardly learned the subject: the photos show nothing of the small world that this base knows (before training its loss "
            f"on them was {figures.loss[0]:.2f}; on pictures of that world it stays below {figures.foreign}). For photos of real things, "
            f"take another base, such as --model sd15. Here, {measured}."
        )
    if word == "barely":
        return f"It has hardly learned anything: {measured}. Train longer (--steps) or faster (--learning-rate)."
    return f"It has learned the subject: {measured}."


def _of_class(drifts: bool, figures: Figures) -> str:
    own, of_class = figures.loss[1], figures.class_loss[1]
    if drifts:
        return (
            "The class is drifting towards the photos: their loss is hardly higher with the class prompt than with the subject's own "
            f"({of_class:.4f} and {own:.4f}). More --class-images or fewer --steps keep the class as it was."
        )
    apart = (of_class - own) / own
    return (
        f"The class is kept: the photos' loss is {abs(apart):.1%} {'higher' if apart >= 0 else 'lower'} with the class prompt than "
        f"with the subject's own ({of_class:.4f} and {own:.4f}), and the class's own picture has changed by {figures.class_picture:.0%}."
    )


def _moved(loss: tuple[float, float]) -> str:
    """`fell by 31% (0.1120 to 0.0773)`."""
    before, after = loss
    share = (before - after) / before
    return f"{'fell' if share >= 0 else 'rose'} by {abs(share):.1%} ({before:.4f} to {after:.4f})"
