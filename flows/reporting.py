"""What a run shows in the Prefect UI, and how it ends when something failed."""

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.states import Failed

from storage.errors import UserError
from vocsep.stopping import TrainingStopped

UPDATE_INTERVAL_SECONDS = 1.0

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class SomeFailed(Exception):
    """Some songs failed; the others are done and stay."""

    def __init__(self, failures: dict[str, str], total: int, what: str) -> None:
        self.failures = failures
        lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        super().__init__(f"{len(failures)} of {total} {what} failed, the others are done:{lines}")


def failing_in_one_line(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """For flows and tasks: an expected failure ends in a Failed state with its message, without a traceback.

    Prefect turns a flow's state into its exception again for whoever called it; for a task, `result_of` does.
    """

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return function(*args, **kwargs)
        except (UserError, SomeFailed, TrainingStopped) as error:
            return cast(Returned, Failed(message=str(error), data=error))

    return wrapper


def result_of(task: Task[Parameters, Returned], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
    """Run a task; raises the exception that it failed with, where a plain call would return a Failed state."""
    return task(*args, return_state=True, **kwargs).result()


class ProgressArtifact:
    """A progress artifact of the running flow, updated at most once a second (each update costs 20 ms)."""

    def __init__(self, key: str, description: str) -> None:
        self._id = create_progress_artifact(0.0, key=key, description=description)
        self._updated = time.monotonic()

    def update(self, share: float) -> None:
        """Show `share` in [0, 1] of the work as done."""
        now = time.monotonic()
        if share >= 1.0 or now - self._updated >= UPDATE_INTERVAL_SECONDS:
            assert isinstance(self._id, UUID)
            update_progress_artifact(self._id, progress=100 * share)
            self._updated = now
