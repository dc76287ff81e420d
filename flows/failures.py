"""How a run ends that failed or was stopped: a failure that a user can fix is one line, and the last one says how to
continue. Prefect itself would report it four times over, with its own tracebacks."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypedDict, TypeVar, cast
from uuid import UUID

from prefect import Flow, Task, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import TerminationSignal
from prefect.flows import FlowStateHook
from prefect.logging.loggers import flow_run_logger
from prefect.states import Cancelled, Failed, exception_to_crashed_state

from storage.errors import UserError
from vocsep.mapping import SomeFailed
from vocsep.training.stopping import TrainingStopped

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

_TOLD_BY_VOCSEP = "told_by_vocsep"
_WITHOUT_TRACEBACK = (UserError, SomeFailed, TrainingStopped, TerminationSignal, KeyboardInterrupt)
_messages: set[str] = set()


def failing_in_one_line(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """For flows and tasks: an expected failure ends in a Failed state with its message, without a traceback.

    Prefect turns a flow's state into its exception again for the caller; for a task, `result_of` does.
    """

    @functools.wraps(function)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        _choose_lines()
        try:
            return function(*args, **kwargs)
        except (UserError, SomeFailed) as error:
            return cast(Returned, _failed(error))
        except TrainingStopped as error:
            if _is_being_cancelled():
                # It saved itself and ends in peace: Prefect would end the process where it is, before its last lines.
                return cast(Returned, Cancelled(message=str(error), data=error))
            return cast(Returned, _failed(error))
        except (KeyboardInterrupt, TerminationSignal) as error:
            _tell_once(asyncio.run(exception_to_crashed_state(error)).message or "")
            raise

    return wrapper


def _failed(error: Exception) -> State[Any]:
    _tell_once(str(error))
    return Failed(message=str(error), data=error)


def _tell_once(message: str) -> None:
    """Leave a message to `say_what_to_do`; Prefect shows states with what `repr` makes of it."""
    _messages.update((message, repr(message)[1:-1]))


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


def say_what_to_do(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of all flows: the log of a run that did not finish says why, and how to resume.

    Prefect calls it in the run's process, and the worker does where that was killed or the run cancelled.
    """
    log = flow_run_logger(flow_run, flow)
    if state.message in _messages:
        told = {**(log.extra or {}), _TOLD_BY_VOCSEP: True}
        # What a command was called for, it prints itself: Prefect's logger without a terminal.
        logger = log.logger if flow_run.deployment_id else logging.getLogger("prefect.extra")
        logger.error("%s", state.message, extra=told)
    again = f"prefect flow-run retry {flow_run.id}" if flow_run.deployment_id else "the same command"
    was_stopped = state.is_cancelled() or state.is_crashed() or "stopped by SIG" in (state.message or "")
    log.error("What was finished stays%s resume with: %s", ";" if was_stopped else ". Fix the cause, then", again)
    # A process that a signal ends sends nothing more.
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()


def _is_of_use(record: logging.LogRecord) -> bool:
    """Whether a line of Prefect's tells more than the one line that vocsep tells itself."""
    if getattr(record, _TOLD_BY_VOCSEP, False):
        return True
    if record.exc_info and isinstance(record.exc_info[1], _WITHOUT_TRACEBACK):
        return False
    line = record.getMessage()
    return not any(message in line for message in _messages)


def _choose_lines() -> None:
    """Have what the library tells belong to the run, however that was started, and leave out what is of no use."""
    logging.getLogger("vocsep").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_is_of_use)


class _Hooks(TypedDict):
    on_failure: list[FlowStateHook[Any, Any]]
    on_crashed: list[FlowStateHook[Any, Any]]
    on_cancellation: list[FlowStateHook[Any, Any]]


HOOKS: _Hooks = {
    "on_failure": [say_what_to_do],
    "on_crashed": [say_what_to_do],
    "on_cancellation": [say_what_to_do],
}
"""Of all flows."""
