"""Loss and gradients of a batch that is computed in parts, each by one thread, shared by all processes.

Threads that meet at the end of every layer wait for the slowest, and on a busy machine one of them always is; threads
that each take the next part through the whole network meet once per step. What a part gives depends on nothing but its
patches and its seed, and the parts are added in order, so that the number of threads changes nothing (as long as there
are no more threads than parts).
"""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import torch
from torch import Tensor, distributed, nn

from vocsep.models.mask_module import MaskModule
from vocsep.patches.maker import Batch
from vocsep.training.group import Group

# Smaller parts read the weights more often, larger ones leave too little to share. Devices take whole batches.
PART_PATCHES = 4

Loss = Callable[[MaskModule, Batch], Tensor]


class SeededDropout(nn.Dropout):
    """Dropout whose random numbers come from its own generator, independent of other threads."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__(share)
        self._generator = generator

    def forward(self, hidden: Tensor) -> Tensor:
        """In training a random share of the values becomes 0, the rest grows to keep the mean."""
        if not self.training or self.p == 0:
            return hidden
        kept = torch.empty_like(hidden).bernoulli_(1 - self.p, generator=self._generator)
        return hidden * kept / (1 - self.p)


class _Replica:
    """The network with the weights of the original, and its own batch norms and dropouts."""

    def __init__(self, original: MaskModule, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self.network = copy.deepcopy(original).train()
        for module, twin in zip(list(original.modules()), list(self.network.modules()), strict=True):
            for name, weight in module._parameters.items():
                twin._parameters[name] = weight
            for name, child in list(twin.named_children()):
                if isinstance(child, nn.Dropout):
                    setattr(twin, name, SeededDropout(child.p, self.generator))
        self.norms = batch_norms(self.network)
        for norm in self.norms:
            norm.momentum = 1.0  # keeps what this part has, nothing of earlier ones


def parts_of(patches: int, device: torch.device) -> int:
    """How many parts a process's share of a batch is cut into."""
    return max(1, patches // PART_PATCHES) if device.type == "cpu" else 1


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """All of them, in order."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


class BatchParts:
    """Gives a network the gradients of whole batches.

    A process's share of a batch is cut into parts of about `PART_PATCHES` patches (a device takes it whole); batch norm
    sees one part at a time (Hoffer, Hubara, Soudry: "Train longer, generalize better", NeurIPS 2017), and its running
    averages take in the mean of the parts. Several processes have the parts that one would have, as long as there are
    no more processes than parts.

    Parameters
    ----------
    loss
        Mean loss of a batch's patches.
    patches
        Of this process's share.
    threads
        How many there are for the parts: one for each, or several where there are more than parts.
    """

    def __init__(self, group: Group, network: MaskModule, loss: Loss, patches: int, threads: int) -> None:
        self._group, self._network, self._loss = group, network, loss
        self._weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._parts = parts_of(patches, group.device)
        workers = min(threads, self._parts)
        self._idle: SimpleQueue[_Replica] = SimpleQueue()
        for _ in range(workers):
            self._idle.put(_Replica(network, group.device))
        each = (threads // workers,)
        self._workers = ThreadPoolExecutor(workers, "parts", initializer=torch.set_num_threads, initargs=each)

    def close(self) -> None:
        """End the threads."""
        self._workers.shutdown()

    def backward(self, batch: Batch, seed: int) -> float:
        """Leave the gradients of the whole batch in the network's weights; the mean loss of this process's share.

        Parameters
        ----------
        batch
            This process's share of the batch.
        seed
            Of the step: dropouts depend on it and on the number of the part.
        """
        processes, rank = self._group.size, self._group.rank
        size = len(batch.mixture)
        parts = [batch.items(slice(part, None, self._parts)) for part in range(self._parts)]
        # The parts of process r are numbers r, r + processes, ...: those that one process would number so.
        futures = [
            self._workers.submit(self._part, part, seed + rank + number * processes)
            for number, part in enumerate(parts)
        ]
        # Each set of gradients is as large as the network: none is held for longer than it is needed.
        for weight in self._weights:
            weight.grad = None
        total: list[Tensor] = []
        loss = 0.0
        for part in parts:
            share = len(part.mixture) / size
            part_loss, values = futures.pop(0).result()
            loss += share * part_loss
            torch._foreach_mul_(values, share / processes)
            if total:
                torch._foreach_add_(total, values)
            else:
                total = values
            del values
        if processes > 1:
            total = _summed_over_processes(total)
        for weight, gradient in zip(self._weights, total, strict=False):
            # In the memory format of the weight: fused optimizers read both as one run of numbers.
            weight.grad = torch.empty_like(weight).copy_(gradient)
        means = iter(total[len(self._weights) :])
        for norm in batch_norms(self._network):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert norm.num_batches_tracked is not None
            assert norm.momentum is not None
            norm.running_mean.lerp_(next(means), norm.momentum)
            norm.running_var.lerp_(next(means), norm.momentum)
            norm.num_batches_tracked += 1
        return loss

    def _part(self, part: Batch, seed: int) -> tuple[float, list[Tensor]]:
        """Loss of a part, and the gradients of all weights, then mean and variance that each batch norm saw."""
        replica = self._idle.get()
        try:
            replica.generator.manual_seed(seed)
            with self._group.autocast():
                loss = self._loss(replica.network, part)
            gradients = torch.autograd.grad(loss, self._weights)
            seen = [
                value.clone()
                for norm in replica.norms
                for value in (norm.running_mean, norm.running_var)
                if value is not None
            ]
            return float(loss.detach()), [*gradients, *seen]
        finally:
            self._idle.put(replica)


def _summed_over_processes(values: list[Tensor]) -> list[Tensor]:
    """The sum of every tensor over all processes, in one message."""
    flat = torch.cat([value.flatten() for value in values])
    distributed.all_reduce(flat)
    pieces = torch.split(flat, [value.numel() for value in values])
    return [piece.view(value.shape) for value, piece in zip(values, pieces, strict=True)]
