"""A network's copy that one thread or process computes parts of batches with."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vocsep.models.mask_module import MaskModule
from vocsep.patches.batch import Batch
from vocsep.training.group import Group

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


class Replica:
    """The network with the weights of the original, and its own batch norms and dropouts.

    Parameters
    ----------
    loss
        Mean loss of a batch's patches.
    """

    def __init__(self, group: Group, original: MaskModule, loss: Loss) -> None:
        self.group, self.original, self.loss = group, original, loss
        self.weights = learned_weights(original)
        self._generator = torch.Generator(group.device)
        self._network = copy.deepcopy(original).train()
        for module, twin in zip(list(original.modules()), list(self._network.modules()), strict=True):
            for name, weight in module._parameters.items():
                twin._parameters[name] = weight
            for name, child in list(twin.named_children()):
                if isinstance(child, nn.Dropout):
                    setattr(twin, name, SeededDropout(child.p, self._generator))
        self._norms = batch_norms(self._network)
        for norm in self._norms:
            norm.momentum = 1.0  # keeps what this part has, nothing of earlier ones

    def computed(self, part: Batch, seed: int) -> tuple[float, list[Tensor]]:
        """Loss of a part, and the gradients of all weights, then mean and variance that each batch norm saw."""
        self._generator.manual_seed(seed)
        with self.group.autocast():
            loss = self.loss(self._network, part)
        gradients = torch.autograd.grad(loss, self.weights)
        seen = [
            value.clone()
            for norm in self._norms
            for value in (norm.running_mean, norm.running_var)
            if value is not None
        ]
        return float(loss.detach()), [*gradients, *seen]


def learned_weights(network: nn.Module) -> list[nn.Parameter]:
    """Those that have gradients, in order."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """All of them, in order."""
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
