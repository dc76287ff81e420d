"""How long a run may take, in minutes, steps or epochs."""

import time
from math import ceil

from storage.store import SpectrogramStore
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.config import TrainConfig

# Without any budget: what two idle cores do in 4 to 6 minutes with the default network, and how long it may take.
DEFAULT_STEPS = 1600
DEFAULT_MINUTES = 15.0

# From this share of the time on (a minute of 15) it counts where the schedule is: the first steps are no measure of
# how fast a machine is.
SETTLED_SHARE = 1 / 15


class Budget:
    """How much of the allowed steps and seconds is used, those of earlier parts of a resumed run included.

    Attributes
    ----------
    steps, seconds
        The first that is used up ends the run; None: no limit.
    is_default
        Whether nobody asked for it.
    """

    def __init__(self, steps: int | None, seconds: float | None, is_default: bool = False) -> None:
        self.steps = steps
        self.seconds = seconds
        self.is_default = is_default
        self.start()

    @classmethod
    def of(cls, config: TrainConfig, store: SpectrogramStore) -> "Budget":
        """The budget that a configuration means on the songs of a store."""
        steps = [config.steps] if config.steps else []
        if config.epochs:
            patches = sum(track.frames * track.channels for track in store.tracks("train"))
            patches //= PATCH_FRAMES * config.channels
            steps.append(max(1, ceil(config.epochs * patches / config.batch_size)))
        minutes = config.max_minutes
        if not steps and minutes is None:
            return cls(DEFAULT_STEPS, DEFAULT_MINUTES * 60, is_default=True)
        return cls(min(steps) if steps else None, minutes * 60 if minutes else None)

    def start(self, seconds_before: float = 0.0) -> None:
        """Begin to count, `seconds_before` having been used already."""
        self._started = time.monotonic() - seconds_before

    @property
    def seconds_used(self) -> float:
        """Seconds since the start, those before a resume included."""
        return time.monotonic() - self._started

    def __str__(self) -> str:
        """For people: `500 steps`, `4 minutes`, or `500 steps or 4 minutes`."""
        parts = [f"{self.steps} steps"] if self.steps else []
        parts += [f"{self.seconds / 60:g} minutes"] if self.seconds else []
        return " or ".join(parts)

    def used_steps(self, step: int) -> float:
        """Share of the steps after `step` steps; 0 without a limit on steps."""
        return min(1.0, step / self.steps) if self.steps else 0.0

    def used_seconds(self, seconds: float) -> float:
        """Share of the time that has passed after `seconds`; 0 without a limit on time."""
        return min(1.0, seconds / self.seconds) if self.seconds else 0.0

    def used(self, step: int, used_seconds: float) -> float:
        """Share in [0, 1] after `step` steps and a share of the time."""
        return max(self.used_steps(step), used_seconds)

    def scheduled(self, step: int, used_seconds: float) -> float:
        """Share in [0, 1] that the schedule of the learning rate is at in step `step` (1 is the first).

        Of steps and time, the one that ends first. As long as that is the steps, nothing depends on how fast the
        machine is.

        Parameters
        ----------
        used_seconds
            Share of the time that is used.
        """
        if self.steps and used_seconds < SETTLED_SHARE:
            return self.used_steps(step)
        return self.used(step, used_seconds)
