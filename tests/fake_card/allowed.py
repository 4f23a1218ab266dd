"""The waits inside a step that are allowed, by the place that waits, each with its reason. There must be no others."""

EVERY_STEP = {
    "engine/training/loop.py:wait": "the loss, read a step late; that of the first and of the last step at once",
    "engine/training/optimizers.py:step": "torch's gradient scaler asks whether to step, of an optimizer that can't leave it out by itself",
}
FIRST_STEP = {
    "engine/families/noising.py:add_noise": "the noise schedule goes to the card once",
    "engine/families/noising.py:loss_weights": "so does the weight of each timestep",
    "engine/training/adamw.py:place": "the optimizer's state is made",
    "engine/training/adamw.py:_maps_on": "the values that 8 bits stand for go to the card once",
}
FIRST_TWO_STEPS = {
    "engine/training/loop.py:check_reached": "whether an update of a LoRA was left out",
    "engine/training/optimizers.py:without_gradient": "which weights of a LoRA had a gradient, in one read",
}


def is_allowed(place: str, step: int) -> bool:
    """Whether the host may wait at a place in a step, counted from 1."""
    return place in EVERY_STEP or (step == 1 and place in FIRST_STEP) or (step <= 2 and place in FIRST_TWO_STEPS)
