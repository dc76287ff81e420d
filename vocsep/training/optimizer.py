"""What a step does with the gradients: Muon, Adam or AdamW."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vocsep.training.config import TrainConfig

# Of the odd polynomial a x + b x^3 + c x^5 that brings all singular values near 1 in a few rounds.
_ROUNDS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def new_optimizer(config: TrainConfig, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer of a training; the loop sets the learning rate at every step."""
    fused = device.type in ("cpu", "cuda")
    if config.optimizer == "muon":
        return Muon(network.parameters())
    if config.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay, fused=fused)
    return torch.optim.Adam(network.parameters(), fused=fused)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of another one, and singular values between some 0.7 and 1.2.

    Parameters
    ----------
    matrix
        `(rows, columns)` float32; zeros stay zeros.

    References
    ----------
    Jordan et al.: "Muon: an optimizer for hidden layers in neural networks", 2024 (Newton-Schulz iteration).
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are made orthogonal for weights of layers, and Adam for all other parameters.

    A gradient of a layer has few large singular values; made equal, the rare directions are learned as fast as the
    common ones. `torch.optim.Muon` does so for matrices only: here a convolution's weights are a matrix, too, with a
    row for each of its outputs.

    Parameters
    ----------
    parameters
        Those of two or more dimensions are a layer's weights.
    lr
        Root mean square of what is added to a layer's weights, and the rate of Adam.
    momentum
        Of layers (with Nesterov's look ahead).
    betas, eps
        Of Adam.

    References
    ----------
    Jordan et al.: "Muon: an optimizer for hidden layers in neural networks", 2024. Liu et al.: "Muon is scalable for
    LLM training", 2025 (updates of one size for every shape; theirs is a fifth of it).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._update_layer if parameter.ndim > 1 else self._update_other)(parameter, group)
        return loss

    def _update_layer(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].mul_(group["momentum"]).add_(gradient)
        wanted = gradient.add(state["momentum"], alpha=group["momentum"]).flatten(1)
        # The root mean square of an orthogonal matrix is 1 over this.
        size = max(wanted.shape) ** 0.5
        weight.sub_(orthogonal(wanted).view(weight.shape) * size, alpha=group["lr"])

    def _update_other(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient, (first, second) = self.state[parameter], parameter.grad, group["betas"]
        assert gradient is not None
        if not state:
            # A number of the steps like the moments: a checkpoint holds arrays.
            state["step"] = torch.zeros((), device=parameter.device)
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        passed = float(state["step"])
        deviation = (state["square"] / (1 - second**passed)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["mean"] / (1 - first**passed), deviation, value=-group["lr"])
