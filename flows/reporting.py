"""What a run shows in the Prefect UI, and how it ends when something failed."""

import base64
import functools
import logging
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import Flow, Task, runtime
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import TerminationSignal
from prefect.logging.loggers import flow_run_logger
from prefect.states import Failed

from storage.errors import UserError
from vocsep.mapping import SomeFailed
from vocsep.training.stopping import TrainingStopped

# What the library tells belongs to the run, however the run was started.
logging.getLogger("vocsep").setLevel(logging.INFO)

UPDATE_INTERVAL_SECONDS = 1.0

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def failing_in_one_line(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """For flows and tasks: an expected failure ends in a Failed state with its message, without a traceback.

    Prefect turns a flow's state into its exception again for whoever called it; for a task, `result_of` does.
    """

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return function(*args, **kwargs)
        except (UserError, SomeFailed) as error:
            return cast(Returned, Failed(message=str(error), data=error))
        except TrainingStopped as error:
            if _is_being_cancelled():
                # The run is saved; let Prefect's engine do what it does with cancelled runs.
                raise TerminationSignal(error.signal) from None
            return cast(Returned, Failed(message=str(error), data=error))

    return wrapper


def say_what_to_do(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of all flows: the last line of a run that failed or died says how to go on.

    Prefect calls it in the run's process, and the worker does where that was killed.
    """
    again = f"prefect flow-run retry {flow_run.id}" if flow_run.deployment_id else "the same command"
    flow_run_logger(flow_run, flow).error("What was finished stays. Once the cause is fixed, go on with: %s", again)


def _is_being_cancelled() -> bool:
    run = runtime.flow_run.id
    if run is None:
        return False
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run)).state
    return state is not None and state.is_cancelling()


def result_of(task: Task[Parameters, Returned], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
    """Run a task; raises the exception that it failed with, where a plain call would return a Failed state."""
    return task(*args, return_state=True, **kwargs).result()


def shown(step: Callable[[], Returned], show: Callable[[Returned], None]) -> Returned:
    """What a step returns, after it was shown; where some songs failed, the rest is shown before that is raised."""
    try:
        result = step()
    except SomeFailed as some:
        show(some.result)
        raise
    show(result)
    return result


class ProgressArtifact:
    """A progress artifact of the running flow, updated at most once a second (each update costs 20 ms)."""

    def __init__(self, key: str, description: str) -> None:
        self._id = create_progress_artifact(0.0, key=key, description=description)
        self._updated = time.monotonic()

    def update(self, done: float, total: float = 1.0) -> None:
        """Show how much of the work is done."""
        now, share = time.monotonic(), done / total if total else 1.0
        if share >= 1.0 or now - self._updated >= UPDATE_INTERVAL_SECONDS:
            assert isinstance(self._id, UUID)
            update_progress_artifact(self._id, progress=100 * share)
            self._updated = now


def picture(png: bytes, title: str) -> str:
    """A picture for a markdown artifact; it stands in the artifact itself."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


class PictureArtifact:
    """A picture of the running flow, replaced in place, so that a long run does not fill the database."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._id: UUID | None = None

    def show(self, png: bytes) -> None:
        """Show a picture, in the place of the one before."""
        # An artifact of Prefect's type "image" would show the picture's data as a link of 40,000 letters, too.
        text = picture(png, self._description)
        if self._id is None:
            self._id = cast(UUID, create_markdown_artifact(text, key=self._key, description=self._description))
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._id, ArtifactUpdate(data=text))
