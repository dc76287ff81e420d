"""One function over many items that cost each other nothing: here one after the other, or wherever a flow says."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from storage.errors import UserError, escaped
from vocsep.cores import usable_cores
from vocsep.memory import SONG_BYTES, affordable
from vocsep.sessions import begin_session

_is_at_item = False  # in a process of a pool

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
        lines = "".join(f"\n  {escaped(name)}: {escaped(reason)}" for name, reason in failures.items())
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


def pooled(workers: int | None = None) -> Map:
    """A `Map` over processes of one thread each on this machine; None: one for each usable core, as far as
    there is memory for them."""

    def run(
        function: Callable[..., Result],
        items: Sequence[Item],
        arguments: tuple[Any, ...] = (),
        *,
        on_outcome: Callable[[Outcome[Item, Result], int], None] = lambda outcome, done: None,
    ) -> list[Outcome[Item, Result]]:
        processes = min(workers or affordable(usable_cores(), SONG_BYTES), len(items))
        if processes < 2:
            return serial(function, items, arguments, on_outcome=on_outcome)
        outcomes: list[Outcome[Item, Result]] = []

        def told(outcome: Outcome[Item, Result]) -> None:
            outcomes.append(outcome)
            on_outcome(outcome, len(outcomes))

        waiting = list(items)
        while waiting := _in_pool(processes, function, waiting, arguments, told):
            # A process that dies takes all songs with it. They are done one after the other: the first that is not
            # done after another such end is at fault.
            if processes == 1:
                told(Outcome(waiting.pop(0), None, "its process was killed; was there too little memory?"))
            processes = 1
        return outcomes

    return run


def _in_pool(
    processes: int,
    function: Callable[..., Result],
    items: Sequence[Item],
    arguments: tuple[Any, ...],
    told: Callable[[Outcome[Item, Result]], None],
) -> list[Item]:
    """Tell outcomes of items as they are done by new processes; returns those that none is known of, in order, since
    one of the processes died."""
    spawn = multiprocessing.get_context("spawn")
    lost: list[Item] = []
    others = set(multiprocessing.active_children())
    with contextlib.ExitStack() as stack:
        try:
            with children_without_interrupts():
                pool = stack.enter_context(
                    ProcessPoolExecutor(processes, mp_context=spawn, initializer=_prepare_worker)
                )
                futures = {pool.submit(_run_in_worker, function, item, arguments): item for item in items}
            for future in as_completed(futures):
                if not isinstance(future.exception(), BrokenProcessPool):
                    told(outcome_of(future, futures[future]))
            lost = [item for future, item in futures.items() if isinstance(future.exception(), BrokenProcessPool)]
        except BaseException:
            # Each drops its song and cleans up; the end of the `with` statement waits for that.
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
    return lost


@contextlib.contextmanager
def children_without_interrupts() -> Iterator[None]:
    """What a terminal sends (Ctrl-C, that it is closed) goes to every process there; workers are ended by this one,
    and would only complain.

    A signal that is blocked when threads and processes start stays so in them; one that comes meanwhile waits here.
    """
    from_terminal = (signal.SIGINT, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, from_terminal)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, from_terminal)  # that unblocks one when it starts
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    """Share the cores, before numpy and torch are imported; clean up when ended, and end with a killed parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    begin_session()

    def end(number: int, frame: FrameType | None) -> None:
        if not _is_at_item:  # the pool's own code would catch it, and wait for a lock that nobody gives back
            os._exit(128 + number)
        signal.signal(number, signal.SIG_IGN)  # the parent may send it, too: cleaning up is not interrupted
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_in_worker(function: Callable[..., Result], item: Item, arguments: tuple[Any, ...]) -> Outcome[Item, Result]:
    """`run_one` in a process of a pool, which would give one that is ended the next item."""
    global _is_at_item
    try:
        _is_at_item = True
        try:
            return run_one(function, item, arguments)
        finally:
            _is_at_item = False
    except SystemExit:
        os._exit(1)


def outcome_of(future: Any, item: Item) -> Outcome[Item, Any]:
    """What a future of `run_one` came to; an error that is no mistake of the user costs the others nothing, too."""
    error = future.exception()
    if error is None:
        outcome: Outcome[Item, Any] = future.result()
        return outcome
    return Outcome(item, None, f"{type(error).__name__}: {error}".splitlines()[0])


def failures_of(outcomes: Sequence[Outcome[Any, Any]]) -> dict[str, str]:
    """Name of each item that failed to the reason."""
    return {
        str(getattr(outcome.item, "name", outcome.item)): outcome.error
        for outcome in outcomes
        if outcome.error is not None
    }
