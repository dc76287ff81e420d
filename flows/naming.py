"""What runs are called: in a few words what they do, so that a list of them can be read."""

from collections.abc import Callable
from typing import Any, Protocol

from prefect import runtime

from vocsep.tables import visible

_MOST_LETTERS = 100

Name = Callable[[Any], str]


class _TaskRunName(Protocol):
    def __call__(self, parameters: dict[str, Any]) -> str: ...


def flow_run_name(name: Name) -> Callable[[], str]:
    """For a flow with the parameter `config`: `name(config)`."""
    return lambda: _short(name(runtime.flow_run.parameters["config"]))


def task_run_name(name: Name) -> _TaskRunName:
    """For a task with a parameter `config`: `name(config)`."""

    def named(parameters: dict[str, Any]) -> str:
        return _short(name(parameters["config"]))

    return named


def _short(name: str) -> str:
    return visible(name)[:_MOST_LETTERS]
