"""All that a training run is at one step, to and from a checkpoint's arrays and JSON-like state."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from storage.registry import Weights
from vocsep.training.budget import Budget
from vocsep.training.ema import AveragedNetwork

Arrays = dict[str, npt.NDArray[Any]]

_NETWORK, _AVERAGE, _BEST, _OPTIMIZER = "network/", "average/", "best/", "optimizer/"


@dataclass
class Course:
    """How far a run has come; the same in all processes, except for `best_weights`, which the first one has.

    Attributes
    ----------
    step
        Steps done, those before a resume included.
    used, used_seconds
        Share of the budget, and of its time.
    loss
        Smoothed over the steps.
    best_sdr_db, best_mean_sdr_db, best_weights
        Of the validation so far with the highest mean over the songs. Their median, which is what people are told,
        jumps more from one validation to the next.
    history
        One entry per validation.
    validations
        How many validations were due so far.
    without_better
        Validations since the best one.
    """

    step: int = 0
    used: float = 0.0
    used_seconds: float = 0.0
    loss: float = 0.0
    best_sdr_db: float = float("-inf")
    best_mean_sdr_db: float = float("-inf")
    best_weights: Weights = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    validations: int = 0
    validation_seconds: float = 0.0
    without_better: int = 0
    seconds: float = 0.0
    floor_sdr_db: float = float("nan")

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "seconds": self.seconds,
            "used": self.used,
            "best_sdr_db": self.best_sdr_db if self.history else None,
            "best_mean_sdr_db": self.best_mean_sdr_db if self.history else None,
            "history": self.history,
            "validations": self.validations,
            "validation_seconds": self.validation_seconds,
            "without_better": self.without_better,
            "loss": self.loss,
        }

    def restore(
        self, step: int, state: dict[str, Any], best_weights: Weights, budget: Budget, validations: int
    ) -> None:
        """Resume from a checkpoint's state, perhaps with another budget and number of validations."""
        self.step, self.best_weights, self.history = step, best_weights, list(state["history"])
        if self.history:
            self.best_sdr_db = state["best_sdr_db"]
            # Checkpoints that were saved before the mean decided have the median alone.
            self.best_mean_sdr_db = state.get("best_mean_sdr_db", self.best_sdr_db)
        self.loss, self.seconds = state["loss"], state["seconds"]
        self.validation_seconds, self.without_better = state["validation_seconds"], state["without_better"]
        # With a larger budget than before, what was used is a smaller share of it.
        self.used_seconds = budget.used_seconds(self.seconds)
        self.used = budget.used(step, self.used_seconds)
        self.validations = min(state["validations"], int(self.used * validations))

    @property
    def validation_share(self) -> float:
        """Share of the time that validations took."""
        return self.validation_seconds / max(1e-9, self.seconds)

    def validated(self, sdr_db: float, mean_sdr_db: float) -> bool:
        """Take note of a validation; whether it is the best so far."""
        is_best = mean_sdr_db > self.best_mean_sdr_db
        self.without_better = 0 if is_best else self.without_better + 1
        if is_best:
            self.best_sdr_db, self.best_mean_sdr_db = sdr_db, mean_sdr_db
        scores = {"valid_sdr_db": sdr_db, "valid_mean_sdr_db": mean_sdr_db}
        self.history.append({"step": self.step, **scores, "train_loss": self.loss})
        return is_best


def weights_of(network: nn.Module) -> Weights:
    """Copy of a network's weights and buffers as arrays."""
    return {name: _array(value) for name, value in network.state_dict().items()}


def to_arrays(network: nn.Module, average: AveragedNetwork, optimizer: torch.optim.Optimizer, best: Weights) -> Arrays:
    """Weights, their average, the optimizer's moments and the best weights so far, as named arrays."""
    arrays = {_NETWORK + name: value for name, value in weights_of(network).items()}
    if average.network is not network:
        arrays |= {_AVERAGE + name: value for name, value in weights_of(average.network).items()}
    arrays |= {_BEST + name: value for name, value in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        arrays |= {f"{_OPTIMIZER}{index}/{name}": _array(value) for name, value in moments.items()}
    return arrays


def from_arrays(
    arrays: Arrays, network: nn.Module, average: AveragedNetwork, optimizer: torch.optim.Optimizer
) -> Weights:
    """Bring network, average and optimizer to the state of `to_arrays`; returns the best weights so far."""
    network.load_state_dict(_tensors(arrays, _NETWORK))
    if average.network is not network:
        average.network.load_state_dict(_tensors(arrays, _AVERAGE))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _tensors(arrays, _OPTIMIZER).items():
        index, moment = name.split("/")
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                # In the memory format of the weights (channels_last): fused optimizers read both as one run of numbers.
                moments[name] = torch.empty_like(parameter).copy_(value)
    return {name: np.array(value) for name, value in _part(arrays, _BEST).items()}


def _array(value: Tensor) -> npt.NDArray[Any]:
    # Contiguous: the networks are kept in channels_last, files are not.
    array: npt.NDArray[Any] = value.detach().cpu().contiguous().clone().numpy()
    return array


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _tensors(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in _part(arrays, prefix).items()}
