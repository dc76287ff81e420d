"""Exponential moving average of a network's weights."""

import copy

import torch
from torch import nn

# Steps between two moves of the average, each as large as the single moves together: a move reads all weights.
STEPS_PER_UPDATE = 8
# A young average changes too fast for that.
FIRST_STEPS = 64


class AveragedNetwork:
    """The average of a network's weights over the steps; with decay 0 the weights themselves.

    Young averages follow faster: the decay of the n-th step is min(decay, (1 + n) / (10 + n)), as in TensorFlow's
    ExponentialMovingAverage.

    Parameters
    ----------
    decay
        Per step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self.network = copy.deepcopy(network).eval() if decay else network

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        steps = 1 if step <= FIRST_STEPS else STEPS_PER_UPDATE
        if not self._decay or step % steps:
            return
        weight = 1 - min(self._decay, (1 + step) / (10 + step)) ** steps
        averages, values = self.network.state_dict(), self._network.state_dict()
        floating = [name for name, value in values.items() if value.is_floating_point()]
        torch._foreach_lerp_([averages[name] for name in floating], [values[name] for name in floating], weight)
        for name in values.keys() - set(floating):
            averages[name].copy_(values[name])
