"""Per-song work on Dask: a client for a local or an existing cluster, and mapping a function over songs."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed

from storage.errors import UserError
from vocsep import mapping
from vocsep.cores import usable_cores
from vocsep.mapping import Item, Map, Outcome, Result
from vocsep.memory import SONG_BYTES, affordable, usable_memory
from vocsep.progress import progress_bar

WORKER_LOG = logging.getLogger("vocsep.worker")

HOST = "127.0.0.1"
CONNECT_TIMEOUT_SECONDS = 60
RETRIES = 2

# Dask has workers give every freed page back to the system at once, and looks at their stacks a hundred times a second.
# Arrays of a block are made and dropped all the time: with their memory kept, songs take a quarter less time.
WORKER_SETTINGS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 32 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 4 << 20,
    "distributed.worker.profile.enabled": False,
}

# A worker that was paused because its song takes much of its memory would stay so: songs leave nothing behind that it
# could write to disk, and the memory is kept (see above).
NO_PAUSES = dict.fromkeys((f"distributed.worker.memory.{name}" for name in ("target", "spill", "pause")), False)

# Loaded by every worker. It acts when it is imported, so that this process only names it.
_WORKER_SESSION = f"{__package__}.worker_session"

# Against what hangs: on a busy machine processes are silent for longer than Dask bears by itself.
PATIENCE = {
    "distributed.comm.timeouts.connect": "600s",
    "distributed.comm.timeouts.tcp": "600s",
    "distributed.scheduler.worker-ttl": "30 minutes",
}

# Dask's own pages show logs and call stacks to anyone who asks, and load their styles from the internet.
NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}


@contextlib.contextmanager
def dask_client(workers: int | None, tasks: int) -> Iterator[Client]:
    """A client of the cluster at `DASK_ADDRESS`, else of a new local one of single-threaded processes.

    Parameters
    ----------
    workers
        Processes of a local cluster; None means one per usable core, as far as there is memory for them. There are no
        more than tasks.

    Raises
    ------
    UserError
        If `DASK_ADDRESS` is set and nothing answers there.
    """
    address = os.environ.get("DASK_ADDRESS")
    if address:
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT_SECONDS)
        except (OSError, ValueError) as error:
            raise UserError(f"DASK_ADDRESS={address}: no Dask scheduler answers there ({error})") from None
        with client:
            _forward_log(client)
            yield client
        return
    # Dask announces every start and stop of a worker; only errors are of interest here.
    for name in ("distributed", "distributed.scheduler", "distributed.nanny", "distributed.core", "distributed.worker"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set({**WORKER_SETTINGS, **NO_PAUSES, **PATIENCE, **NO_PAGES}))
        stack.enter_context(_environment_kept())
        count = max(1, min(workers or affordable(usable_cores(), SONG_BYTES), tasks))
        with mapping.children_without_interrupts():
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                # One that takes more is started again, and its song tried again, before the system ends something else.
                memory_limit=max(SONG_BYTES, usable_memory() // count),
                host=HOST,
                dashboard_address=f"{HOST}:0",
                worker_dashboard_address=f"{HOST}:0",
                scheduler_kwargs={"dashboard": False},
                preload=[_WORKER_SESSION],
                silence_logs=logging.ERROR,
            )
        client = stack.enter_context(Client(stack.enter_context(cluster)))
        _forward_log(client)
        yield client


def _forward_log(client: Client) -> None:
    """Have what the library logs on workers logged here too, as a part of the run.

    That a song is done goes to the run only: in the terminal, there is a progress bar.
    """
    WORKER_LOG.handlers = list(logging.getLogger("vocsep").handlers)
    WORKER_LOG.propagate = False
    client.forward_logging("vocsep", level=logging.INFO)


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Restore the environment: Dask gives its workers OMP_NUM_THREADS=1 by way of this process's own variables, and
    a training that follows in it would run on one core."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_one(function: Callable[..., Result], item: Item, arguments: tuple[Any, ...]) -> Outcome[Item, Result]:
    """Runs on the worker; exceptions other than a user's mistake have Dask try again."""
    log = logging.getLogger("vocsep")
    log.setLevel(logging.INFO)
    log.propagate = False  # to the client only, not to this process's own output
    name, started = getattr(item, "name", item), time.perf_counter()
    outcome = mapping.run_one(function, item, arguments)
    if outcome.error is None:
        WORKER_LOG.info("%s: %s, %.1f s", function.__name__, name, time.perf_counter() - started)
    else:
        WORKER_LOG.warning("%s: %s: failed: %s", function.__name__, name, outcome.error)
    return outcome


@contextlib.contextmanager
def dask_map(workers: int | None, description: str) -> Iterator[Map]:
    """A `Map` of songs over the workers of `dask_client`, which starts when it is first used, with a progress bar."""
    with contextlib.ExitStack() as stack:
        clients: list[Client] = []

        def run(
            function: Callable[..., Result],
            items: Sequence[Item],
            arguments: tuple[Any, ...] = (),
            *,
            on_outcome: Callable[[Outcome[Item, Result], int], None] | None = None,
        ) -> list[Outcome[Item, Result]]:
            if not items:
                return []
            if not clients:
                clients.append(stack.enter_context(dask_client(workers, len(items))))
            return map_songs(clients[0], description, function, items, arguments, on_outcome)

        yield run


def map_songs(
    client: Client,
    description: str,
    function: Callable[..., Result],
    songs: Sequence[Item],
    arguments: tuple[Any, ...],
    on_outcome: Callable[[Outcome[Item, Result], int], None] | None = None,
) -> list[Outcome[Item, Result]]:
    """Outcomes of `function(song, *arguments)`, as a `Map` gives them, with a progress bar."""
    futures = {client.submit(run_one, function, song, arguments, retries=RETRIES, pure=False): song for song in songs}
    outcomes: list[Outcome[Item, Result]] = []
    with progress_bar(len(songs), description, "songs") as bar:
        for future in as_completed(futures):
            outcomes.append(mapping.outcome_of(future, futures[future]))
            if on_outcome is not None:
                on_outcome(outcomes[-1], len(outcomes))
            bar.update(1)
            future.release()
    return outcomes
