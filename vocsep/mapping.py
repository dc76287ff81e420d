"""One function over many items that cost each other nothing: here one after the other, or wherever a flow says."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from storage.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or the one line that says why there is none."""

    item: Item
    result: Result | None
    error: str | None


class Map(Protocol):
    """Runs `function(item, *arguments)` for every item; a `UserError` of one costs the others nothing.

    `on_outcome` is called in the caller's process, in order of completion, with the outcome and the number of items
    that are done. What it raises ends the work.
    """

    def __call__(
        self,
        function: Callable[..., Result],
        items: Sequence[Item],
        arguments: tuple[Any, ...] = (),
        *,
        on_outcome: Callable[[Outcome[Item, Result], int], None] = lambda outcome, done: None,
    ) -> list[Outcome[Item, Result]]:
        """Outcomes, in order of completion."""
        ...


class SomeFailed(Exception):
    """Some songs failed; the others are done and stay.

    Attributes
    ----------
    failures
        Name of each to the reason.
    result
        What the step would have returned.
    """

    def __init__(self, failures: dict[str, str], total: int, what: str, result: Any = None) -> None:
        self.failures = failures
        self.result = result
        lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        super().__init__(f"{len(failures)} of {total} {what} failed, the others are done:{lines}")


def run_one(function: Callable[..., Result], item: Item, arguments: tuple[Any, ...] = ()) -> Outcome[Item, Result]:
    """One item's outcome: a user's mistake is one like any other; all else is raised."""
    try:
        return Outcome(item, function(item, *arguments), None)
    except UserError as error:
        return Outcome(item, None, str(error))


def serial(
    function: Callable[..., Result],
    items: Sequence[Item],
    arguments: tuple[Any, ...] = (),
    *,
    on_outcome: Callable[[Outcome[Item, Result], int], None] = lambda outcome, done: None,
) -> list[Outcome[Item, Result]]:
    """A `Map` in this process, one item after the other."""
    outcomes: list[Outcome[Item, Result]] = []
    for item in items:
        outcomes.append(run_one(function, item, arguments))
        on_outcome(outcomes[-1], len(outcomes))
    return outcomes


@contextlib.contextmanager
def pooled(workers: int | None = None) -> Iterator[Map]:
    """A `Map` over processes of one thread each on this machine; None: one for each core."""
    with contextlib.ExitStack() as stack:

        def run(
            function: Callable[..., Result],
            items: Sequence[Item],
            arguments: tuple[Any, ...] = (),
            *,
            on_outcome: Callable[[Outcome[Item, Result], int], None] = lambda outcome, done: None,
        ) -> list[Outcome[Item, Result]]:
            processes = min(workers or os.cpu_count() or 1, len(items))
            if processes < 2:
                return serial(function, items, arguments, on_outcome=on_outcome)
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=spawn, initializer=_one_thread))
            stack.callback(pool.shutdown, cancel_futures=True)
            futures = [pool.submit(run_one, function, item, arguments) for item in items]
            outcomes: list[Outcome[Item, Result]] = []
            for future in as_completed(futures):
                outcomes.append(future.result())
                on_outcome(outcomes[-1], len(outcomes))
            return outcomes

        yield run


def _one_thread() -> None:
    """Before numpy and torch are imported: the processes share the cores."""
    os.environ["OMP_NUM_THREADS"] = "1"


def failures_of(outcomes: Sequence[Outcome[Any, Any]]) -> dict[str, str]:
    """Name of each item that failed to the reason."""
    return {
        str(getattr(outcome.item, "name", outcome.item)): outcome.error
        for outcome in outcomes
        if outcome.error is not None
    }
