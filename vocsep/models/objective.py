"""What training minimizes: input scaling, output, target, loss and bins, each chosen by name.

The five choices are independent of each other: an output says what the network's numbers mean, a target which form of
it is compared with which form of the true source. Magnitudes are raw, `(batch, channels, frames, bins)` float32, unless
a formula says otherwise; x is the mixture, v the source that is to be found, e is `EPSILON`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

import torch
from torch import Tensor
from torch.nn import functional

from vocsep.models.objective_config import PEAK_REACH, Objective, OutputName

EPSILON = 1e-8
LOWEST_LOG, HIGHEST_LOG = -12.0, 2.0

# Inputs: what the network makes of raw magnitudes. (`root` has weights: `vocsep.models.mask_module.InputScaling`.)


def raw(magnitudes: Tensor) -> Tensor:
    """x, as it is."""
    return magnitudes


def logarithm(magnitudes: Tensor) -> Tensor:
    """log(x + e)."""
    return torch.log(magnitudes + EPSILON)


def log_unit(magnitudes: Tensor) -> Tensor:
    """(clip(log(x + e), -12, 2) + 12) / 14, in [0, 1]."""
    return (logarithm(magnitudes).clamp(LOWEST_LOG, HIGHEST_LOG) - LOWEST_LOG) / (HIGHEST_LOG - LOWEST_LOG)


def raw_unit(magnitudes: Tensor) -> Tensor:
    """(clip(x, a, b) - a) / (b - a), a = exp(-12), b = exp(2), in [0, 1]: `log_unit` without the logarithm."""
    lowest, highest = exp(LOWEST_LOG), exp(HIGHEST_LOG)
    return (magnitudes.clamp(lowest, highest) - lowest) / (highest - lowest)


def peak(magnitudes: Tensor) -> Tensor:
    """x / (max(x) + e), the maximum over all of a patch.

    In a song longer than a patch every frame is divided by the maximum over the patch in whose middle it is.
    """
    frames = magnitudes.amax(dim=(1, 3))
    if frames.shape[1] <= 2 * PEAK_REACH:
        highest = frames.amax(dim=1, keepdim=True)
    else:
        highest = functional.max_pool1d(frames[:, None], 2 * PEAK_REACH + 1, stride=1, padding=PEAK_REACH)[:, 0]
    return magnitudes / (highest[:, None, :, None] + EPSILON)


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "raw": raw,
    "log": logarithm,
    "log-unit": log_unit,
    "raw-unit": raw_unit,
    "peak": peak,
}


# Outputs: what the numbers z that leave the network's last layer mean.


@dataclass(frozen=True)
class Estimate(ABC):
    """Numbers of the last layer and the mixture that they were made from, both `(batch, channels, frames, bins)`."""

    values: Tensor
    mixture: Tensor

    @classmethod
    @abstractmethod
    def of_mask(cls, mask: Tensor, mixture: Tensor) -> "Estimate":
        """The estimate that means this mask in [0, 1], up to rounding."""

    @abstractmethod
    def mask(self) -> Tensor:
        """Mask m >= 0."""

    @abstractmethod
    def log_mask(self) -> Tensor:
        """log(m)."""

    def magnitude(self) -> Tensor:
        """m x, the source's magnitude."""
        return self.mask() * self.mixture


class SigmoidMask(Estimate):
    """m = 1 / (1 + exp(-z))."""

    @classmethod
    def of_mask(cls, mask: Tensor, mixture: Tensor) -> Estimate:
        """z = log(m / (1 - m))."""
        return cls(torch.logit(mask.clamp(EPSILON, 1 - 1e-7)), mixture)

    def mask(self) -> Tensor:
        """See the class."""
        return torch.sigmoid(self.values)

    def log_mask(self) -> Tensor:
        """log(m)."""
        return functional.logsigmoid(self.values)


class LogMask(Estimate):
    """m = exp(z)."""

    @classmethod
    def of_mask(cls, mask: Tensor, mixture: Tensor) -> Estimate:
        """z = log(m + e)."""
        return cls(torch.log(mask + EPSILON), mixture)

    def mask(self) -> Tensor:
        """See the class."""
        return torch.exp(self.values)

    def log_mask(self) -> Tensor:
        """z."""
        return self.values


class Magnitude(Estimate):
    """The source's magnitude itself, log(1 + exp(z)), never negative; m is its ratio to the mixture's, x + e."""

    @classmethod
    def of_mask(cls, mask: Tensor, mixture: Tensor) -> Estimate:
        """z = log(exp(m x) - 1)."""
        wanted = (mask * mixture).clamp(min=EPSILON)
        return cls(wanted + torch.log(-torch.expm1(-wanted)), mixture)

    def magnitude(self) -> Tensor:
        """See the class."""
        return functional.softplus(self.values)

    def mask(self) -> Tensor:
        """See the class."""
        return self.magnitude() / (self.mixture + EPSILON)

    def log_mask(self) -> Tensor:
        """log(magnitude + e) - log(x + e)."""
        return torch.log(self.magnitude() + EPSILON) - torch.log(self.mixture + EPSILON)


OUTPUTS: dict[str, type[Estimate]] = {"mask": SigmoidMask, "log-mask": LogMask, "magnitude": Magnitude}


# Targets: which form of the estimate is compared with which form of the source.


def in_phase(mixture: Tensor, source: Tensor, rest: Tensor) -> Tensor:
    """v cos(p), p the angle between mixture and source: from -v to v, by the law of cosines (x^2 + v^2 - r^2) / (2 x).

    The mask of a mixture keeps its phase. Of all m >= 0, v cos(p) / x leaves the smallest error of the waveform, where
    v / x is too large whenever the phases differ.

    Parameters
    ----------
    rest
        r, magnitudes of what the mixture holds besides the source.

    References
    ----------
    Erdogan, Hershey, Watanabe, Le Roux: "Phase-sensitive and recognition-boosted speech separation using deep recurrent
    neural networks", ICASSP 2015.
    """
    product = mixture.square().addcmul_(source, source).addcmul_(rest, rest, value=-1)
    return (product / (2 * mixture + EPSILON)).clamp_(-source, source)


def truth(objective: Objective, mixture: Tensor, source: Tensor, rest: Tensor | None) -> Tensor:
    """What `distances` compares a source's estimate with: its magnitudes, or the part that is `in_phase`.

    Parameters
    ----------
    rest
        See `in_phase`; not needed for other targets.
    """
    if objective.target != "in-phase":
        return source
    assert rest is not None
    return in_phase(mixture, source, rest)


def source_target(estimate: Estimate, source: Tensor) -> tuple[Tensor, Tensor]:
    """m x and v: magnitudes, both raw (Jansson et al. 2017, eq. 1)."""
    return estimate.magnitude(), source


def oracle_mask(mixture: Tensor, source: Tensor) -> Tensor:
    """clip(v / (x + e), 0, 1): the mask that would give the source's magnitudes, of raw ones."""
    return (source / (mixture + EPSILON)).clamp(0, 1)


def oracle_target(estimate: Estimate, source: Tensor) -> tuple[Tensor, Tensor]:
    """m and clip(v / (x + e), 0, 1)."""
    return estimate.mask(), oracle_mask(estimate.mixture, source)


def log_ratio_target(estimate: Estimate, source: Tensor) -> tuple[Tensor, Tensor]:
    """log(m) and log(v + e) - log(x + e)."""
    return estimate.log_mask(), torch.log(source + EPSILON) - torch.log(estimate.mixture + EPSILON)


TARGETS: dict[str, Callable[[Estimate, Tensor], tuple[Tensor, Tensor]]] = {
    "in-phase": source_target,
    "source": source_target,
    "oracle": oracle_target,
    "log-ratio": log_ratio_target,
}


# Losses: distances value by value.


def l1(estimated: Tensor, true: Tensor, mixture: Tensor) -> Tensor:
    """|a - b| of every value."""
    return (estimated - true).abs()


def mse(estimated: Tensor, true: Tensor, mixture: Tensor) -> Tensor:
    """(a - b)^2 of every value."""
    return (estimated - true).square()


def relative_mse(estimated: Tensor, true: Tensor, mixture: Tensor) -> Tensor:
    """(a - b)^2 / (mean(x^2) + e), the mean over all of a patch's mixture."""
    return (estimated - true).square() / (mixture.square().mean(dim=(1, 2, 3), keepdim=True) + EPSILON)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"l1": l1, "mse": mse, "snr": relative_mse}
# Of the mixture's power: an error so small counts as none, as in the thresholded SNR of Wisdom et al. 2020
# ("Unsupervised sound separation using mixture invariant training"). Else patches without singing would draw all
# attention.
SMALLEST_ERROR = 1e-3


def fitting_bias(output: OutputName, mean_mask: float) -> float:
    """Bias with which an output layer begins at a mask: log(m / (1 - m)) of a sigmoid, log(m) of a log-mask."""
    mean_mask = min(max(mean_mask, 1e-4), 1 - 1e-4)
    return log(mean_mask / (1 - mean_mask)) if output == "mask" else log(mean_mask)


def distances(objective: Objective, estimate: "Estimate", source: Tensor) -> Tensor:
    """Distance of every value of an estimate from the truth; `source` (see `truth`) has the estimate's shape."""
    return LOSSES[objective.loss](*TARGETS[objective.target](estimate, source), estimate.mixture)


def distance(objective: Objective, estimate: "Estimate", source: Tensor) -> Tensor:
    """Distance of some patches from the truth: the mean of `distances`; of `snr` the geometric mean over patches."""
    values = distances(objective, estimate, source)
    if objective.loss == "snr":
        return (values.mean(dim=(1, 2, 3)) + SMALLEST_ERROR).log().mean().exp()
    return values.mean()


def minimized(objective: Objective, estimate: "Estimate", source: Tensor) -> Tensor:
    """What training minimizes: the distance; of `snr` its logarithm, to which loud and quiet songs give as much."""
    apart = distance(objective, estimate, source)
    return apart.log() if objective.loss == "snr" else apart


def as_distance(objective: Objective, value: float) -> float:
    """The distance of which `value` was minimized."""
    return exp(value) if objective.loss == "snr" else value
