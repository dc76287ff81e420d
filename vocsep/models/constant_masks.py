"""Answers that need no network: a mask that is the same everywhere, or the same wherever the bin is the same."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from vocsep.models.objective import OUTPUTS, distances
from vocsep.models.objective_config import Objective

# Each narrows the place of the best mask by 1 / 1.618.
SEARCH_STEPS = 30


def mask_loss(objective: Objective, mask: Tensor | float, mixture: Tensor, source: Tensor) -> Tensor:
    """Loss per bin `(bins,)` of a mask that needs no network: one number, one per bin, or one per value.

    Parameters
    ----------
    mixture, source
        `(patches, channels, frames, bins)`, raw magnitudes.
    """
    # Not expanded: what is computed of the mask alone is computed once, not for every value of the mixture.
    estimate = OUTPUTS[objective.output].of_mask(torch.as_tensor(mask, dtype=mixture.dtype), mixture)
    return distances(objective, estimate, source).mean(dim=(0, 1, 2))


def best_constant_mask(objective: Objective, mixture: Tensor, source: Tensor) -> tuple[float, float]:
    """The one mask in [0, 1] for everything that has the smallest loss, and that loss."""
    mask = _smallest(lambda mask: mask_loss(objective, mask, mixture, source).mean(dim=0, keepdim=True), 1)
    return float(mask), float(mask_loss(objective, mask, mixture, source).mean())


def best_mask_per_bin(objective: Objective, mixture: Tensor, source: Tensor) -> tuple[Tensor, float]:
    """The mask in [0, 1] of every bin that has the smallest loss, `(bins,)`, and the loss of all."""
    mask = _smallest(lambda mask: mask_loss(objective, mask, mixture, source), mixture.shape[-1])
    return mask, float(mask_loss(objective, mask, mixture, source).mean())


def _smallest(loss: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Where in [0, 1] losses that have one valley are smallest, `count` of them at once, by golden-section search."""
    ratio = (sqrt(5) - 1) / 2
    low, high = torch.zeros(count), torch.ones(count)
    inner, outer = high - ratio * (high - low), low + ratio * (high - low)
    at_inner, at_outer = loss(inner), loss(outer)
    for _ in range(SEARCH_STEPS):
        left = at_inner <= at_outer
        low, high = torch.where(left, low, inner), torch.where(left, outer, high)
        new = torch.where(left, high - ratio * (high - low), low + ratio * (high - low))
        found = loss(new)
        inner, outer = torch.where(left, new, outer), torch.where(left, inner, new)
        at_inner, at_outer = torch.where(left, found, at_outer), torch.where(left, at_inner, found)
    best = (low + high) / 2
    # The valley may be at an end.
    ends = [torch.zeros(count), torch.ones(count), best]
    values = torch.stack([loss(end) for end in ends])
    return torch.stack(ends).gather(0, values.argmin(dim=0, keepdim=True))[0]
