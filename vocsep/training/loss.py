"""What training minimizes."""

import torch
from torch import Tensor

from vocsep.models.mask_module import MaskModule
from vocsep.models.objective import minimized, truth
from vocsep.models.objective_config import Objective
from vocsep.patches.batch import Batch


def batch_loss(objective: Objective, network: MaskModule, batch: Batch) -> Tensor:
    """What is minimized of a batch: a scalar, the mean over the targets."""
    mixture = batch.mixture.contiguous(memory_format=torch.channels_last)
    truths = (truth(objective, *part) for part in batch.sources())
    losses = [
        minimized(objective, estimate, network.kept(true))
        for estimate, true in zip(network.estimates(mixture), truths, strict=False)
    ]
    return torch.stack(losses).mean()
