"""What training minimises: the distance of mask * mixture from the vocals, in the raw magnitude domain."""

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def l1(mask: Tensor, mixture: Tensor, vocals: Tensor) -> Tensor:
    """Mean of |mask * mixture - vocals| (Jansson et al. 2017, eq. 1, as a mean). All tensors of one shape."""
    return (mask * mixture - vocals).abs().mean()


def mse(mask: Tensor, mixture: Tensor, vocals: Tensor) -> Tensor:
    """Mean of (mask * mixture - vocals)^2. All tensors of one shape."""
    return (mask * mixture - vocals).square().mean()


LOSSES: dict[str, Loss] = {"l1": l1, "mse": mse}
