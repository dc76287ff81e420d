"""The learning rate over a run."""

from math import cos, pi
from typing import Any, Literal

PLATEAU_VALIDATIONS = 2
PLATEAU_FACTOR = 0.5


class Schedule:
    """Learning rate as a share of the highest, from the used share of the budget and from the validations so far.

    Attributes
    ----------
    reduction
        What `plateau` has come down to.
    """

    def __init__(self, kind: Literal["cosine", "plateau", "constant"], warmup: float) -> None:
        self._kind = kind
        self._warmup = warmup
        self.reduction = 1.0
        self._best = float("-inf")
        self._waited = 0

    def factor(self, used: float) -> float:
        """Linear rise over the first `warmup` share of the budget, then what the kind says.

        `cosine` falls from 1 to 0 along half a cosine; `plateau` is halved by `on_validation`; `constant` stays 1.
        """
        if used < self._warmup:
            return used / self._warmup
        if self._kind == "cosine":
            return 0.5 * (1 + cos(pi * (used - self._warmup) / (1 - self._warmup)))
        return self.reduction

    def on_validation(self, sdr_db: float) -> None:
        """Take note of a validation: `plateau` halves the rate after two in a row that are no better."""
        if self._kind != "plateau":
            return
        self._waited = 0 if sdr_db > self._best else self._waited + 1
        self._best = max(self._best, sdr_db)
        if self._waited >= PLATEAU_VALIDATIONS:
            self.reduction *= PLATEAU_FACTOR
            self._waited = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        best = None if self._best == float("-inf") else self._best
        return {"reduction": self.reduction, "best": best, "waited": self._waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint's state."""
        self.reduction = state["reduction"]
        self._best = float("-inf") if state["best"] is None else state["best"]
        self._waited = state["waited"]
