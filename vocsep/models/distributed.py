"""Layers of a network that several processes train together: what depends on the batch sees that of all processes."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the batches of all processes, on any device; torch's SyncBatchNorm needs GPUs."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalized `(batch, maps, frames, bins)`; in evaluation it is torch's."""
        if not self.training:
            return super().forward(hidden)
        values = hidden.float()
        count = distributed.get_world_size() * hidden.numel() // hidden.shape[1]
        own = torch.stack([values.sum((0, 2, 3)), values.square().sum((0, 2, 3))])
        sums: Tensor = _SumOverProcesses.apply(own)  # type: ignore[no-untyped-call]
        mean = sums[0] / count
        variance = (sums[1] / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        normalized: Tensor = values * scale[:, None, None] + shift[:, None, None]
        return normalized.to(hidden.dtype)


class SharedDropout(nn.Dropout):
    """Dropout whose mask is that of the whole batch, so that the number of processes changes nothing.

    Every process draws it, from generators in the same state, and takes the rows of its own items (`rank`,
    `rank + processes`, ...).
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """In training a random share of `(batch, maps, frames, bins)` becomes 0, the rest grows to keep the mean."""
        if not self.training or self.p == 0:
            return hidden
        processes = distributed.get_world_size()
        # Of the same type and memory format as the batch of a single process: the same random numbers.
        whole = functional.dropout(torch.cat([torch.ones_like(hidden)] * processes), self.p)
        return hidden * whole[distributed.get_rank() :: processes]


def share_batches(network: nn.Module) -> None:
    """Replace the network's batch norms and dropouts by shared ones; names and values of its state stay."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                norm = SharedBatchNorm(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm.to(child.weight.device).train(child.training))
            elif type(child) is nn.Dropout:
                setattr(parent, name, SharedDropout(child.p).train(child.training))
