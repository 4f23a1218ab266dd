"""The DreamBooth objective (Ruiz et al. 2022, arXiv 2208.12242, eq. 2), in the form that latent diffusion uses:

    E w_t ||target - pred||^2  +  lambda E w_t' ||target' - pred'||^2

The first term runs over instance rows (the photos, with the identifier in the prompt), the second over class rows (the frozen model's
own pictures of the class, without it): it is the class-specific prior preservation loss. Nothing here knows the noise schedule; a row's
weight w_t comes from its own time.
"""

import torch
from torch import Tensor


def row_losses(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean squared error of each row, [B, c, h, w] twice -> [B], in float32 whatever the precision; with a mask [B, 1, h, w], the
    mean weighted by it."""
    squares = (prediction.float() - target.float()).square()
    if mask is None:
        return squares.mean(dim=(1, 2, 3))
    return (squares * mask).mean(dim=(1, 2, 3)) / mask.mean(dim=(1, 2, 3))


def dreambooth_loss(losses: Tensor, *, instance_rows: int, prior_loss_weight: float, of: tuple[int, int] | None = None) -> Tensor:
    """The loss, a scalar, of a batch whose first `instance_rows` rows are photos and whose other rows are class images. All rows may be
    of one kind.

    `losses` [B] are the rows' losses, each already weighted by its time; `prior_loss_weight` is the paper's lambda. Where a batch goes
    through the network in several passes, `of` is how many photos and class images it has in all; the passes' losses then add up to the
    batch's.
    """
    instance, prior = losses[:instance_rows], losses[instance_rows:]
    photos, beside = of or (len(instance), len(prior))
    terms = [_share(instance, photos)] if len(instance) else []
    terms += [prior_loss_weight * _share(prior, beside)] if len(prior) else []
    return torch.stack(terms).sum()


def _share(losses: Tensor, of: int) -> Tensor:
    return losses.mean() if of == len(losses) else losses.sum() / of
