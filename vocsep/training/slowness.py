"""Whether a training is slower than it should be, and why."""

import psutil

from vocsep.cores import usable_cores
from vocsep.models.precision import Precision
from vocsep.training.budget import Budget

# Of the default network on two idle cores (see docs/guides/train.md); less than half of it is slow.
EXPECTED_PATCHES_PER_SECOND: dict[Precision, float] = {"bfloat16": 40.0, "float32": 28.0}
SLOW_SHARE = 0.5


def slowness(
    budget: Budget, step: int, seconds: float, steps_per_second: float, batch_size: int, precision: Precision
) -> str | None:
    """One line for people; None where a training is about as fast as expected.

    Parameters
    ----------
    budget
        One in steps and time.
    step, seconds
        Where the run is.
    """
    assert budget.steps
    assert budget.seconds
    expected = EXPECTED_PATCHES_PER_SECOND[precision] / batch_size
    if steps_per_second >= SLOW_SHARE * expected:
        return None
    last = step + int(steps_per_second * (budget.seconds - seconds))
    end = (
        f"{budget.steps} steps take about {(seconds + (budget.steps - step) / steps_per_second) / 60:.0f} minutes"
        if last >= budget.steps
        else f"training ends after {budget.seconds / 60:g} minutes, at about step {last} of {budget.steps}"
    )
    return (
        f"slow: {steps_per_second:.2g} steps/s, where two idle cores do {expected:.2g} with the default network in "
        f"{precision}; load {psutil.getloadavg()[0]:.1f} on {usable_cores()} cores; {end}"
    )
