"""The DreamBooth objective (Ruiz et al. 2022, arXiv 2208.12242, eq. 2), in the form that latent diffusion trains:

    E w_t ||target - pred||^2  +  lambda E w_t' ||target' - pred'||^2

The first term runs over instance rows (the photos, with the identifier), the second over class rows (the frozen model's
own pictures of the class, without it): the class-specific prior preservation loss. It knows no noise schedule; a row's
weight comes from its own timestep.
"""

import torch
from torch import Tensor


def row_losses(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row, [B, c, h, w] twice -> [B], in float32 whatever the precision."""
    return (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))


def dreambooth_loss(
    prediction: Tensor, target: Tensor, *, weights: Tensor, instance_rows: int, prior_loss_weight: float
) -> Tensor:
    """The loss of a batch whose first `instance_rows` rows are photos and whose others are class images: a scalar. There may be
    rows of one kind alone.

    `weights` [B] weighs each row by its timestep; `prior_loss_weight` is the paper's lambda.
    """
    losses = weights * row_losses(prediction, target)
    instance, prior = losses[:instance_rows], losses[instance_rows:]
    terms = [instance.mean()] if len(instance) else []
    terms += [prior_loss_weight * prior.mean()] if len(prior) else []
    return torch.stack(terms).sum()
