"""Patches made ahead of their use."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from storage.errors import UserError
from storage.store import SpectrogramStore
from tests.vocsep.patches.patch_songs import SOURCES, Made, make_store
from vocsep.patches.batch import Batch
from vocsep.patches.maker import PatchMaker
from vocsep.patches.pool import SongPool
from vocsep.patches.prefetch import PREFETCH_DEPTH, prefetched
from vocsep.patches.sampling import Draws
from vocsep.patches.tiers import TierName, open_tier
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.batches import StepBatches, patch_sampler
from vocsep.training.config import TrainConfig

HELD_BY_TRAINING = 1


@pytest.fixture
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 600
    while not set(threading.enumerate()) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


# In a thread


@pytest.mark.usefixtures("_no_thread_is_left")
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_prefetched_items_are_the_same_in_the_same_order(count: int, depth: int) -> None:
    items = [object() for _ in range(count)]
    arrived = list(prefetched(iter(items), depth))
    assert len(arrived) == count
    assert all(first is second for first, second in zip(arrived, items, strict=True))


def test_prefetched_items_are_made_while_others_are_in_use() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = prefetched(numbers(), depth=2)
    assert next(ahead) == 0
    deadline = time.monotonic() + 600
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    # The one in use, two that wait, and one in the thread's hand; no more, however long it takes.
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    assert list(ahead) == list(range(1, 10))


@pytest.mark.usefixtures("_no_thread_is_left")
def test_prefetched_raises_what_its_source_raises_after_the_items_before() -> None:
    def failing() -> Iterator[int]:
        yield 0
        yield 1
        raise UserError("shard is missing")

    ahead = prefetched(failing())
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(UserError, match="shard is missing"):
        next(ahead)


@pytest.mark.parametrize("taken", [1, 3])
def test_prefetched_ends_its_thread_when_closed_early_even_with_a_full_queue(taken: int) -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            yield number

    before = threading.enumerate()
    ahead = prefetched(endless(), depth=2)
    for _ in range(taken):
        next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert threading.enumerate() == before
    # What was taken, what waited in the queue, and one in the thread's hand.
    assert len(made) <= taken + 2 + 1


@pytest.mark.usefixtures("_no_thread_is_left")
def test_prefetched_ends_its_thread_when_its_user_fails() -> None:
    def use() -> None:
        for number in prefetched(itertools.count()):
            raise KeyError(str(number))

    with pytest.raises(KeyError, match="0"):
        use()


# The batches of a training


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    songs = (Made(300, channels=2), Made(60), Made(200))
    return make_store(tmp_path_factory.mktemp("stores") / "store.zarr", songs, dtype="float16")


CONFIG = TrainConfig(batch_size=6, seed=4)


def feed(store: SpectrogramStore, tier: TierName, rank: int = 0, processes: int = 1) -> StepBatches:
    opened = open_tier(SongPool(store), SOURCES, CONFIG.channels, torch.device("cpu"), tier)[0]
    return StepBatches(opened, patch_sampler(CONFIG, SongPool(store)), CONFIG, rank, processes)


@pytest.fixture(scope="module")
def expected(store: SpectrogramStore) -> Callable[[int], Batch]:
    """A function that gives the batch of a step, in separate memory."""
    tier = open_tier(SongPool(store), SOURCES, CONFIG.channels, torch.device("cpu"), "host")[0]
    making = PatchMaker(tier, frames=PATCH_FRAMES, seed=CONFIG.seed, with_accompaniment=True)
    return cache(lambda step: making.make(patch_sampler(CONFIG, SongPool(store)).draw(step)))


def assert_equal(found: Batch, wanted: Batch) -> None:
    assert torch.equal(found.mixture, wanted.mixture)
    assert torch.equal(found.vocals, wanted.vocals)


@pytest.mark.parametrize("tier", ["host", "stream"])
@pytest.mark.parametrize("first", [0, 7])
def test_batches_are_those_of_the_steps_from_any_step_on(
    store: SpectrogramStore, expected: Callable[[int], Batch], tier: TierName, first: int
) -> None:
    batches = feed(store, tier).from_step(first)
    for step, batch in zip(range(first, first + 8), batches, strict=False):
        assert_equal(batch, expected(step))


@pytest.mark.parametrize("tier", ["host", "stream"])
def test_batches_of_processes_are_disjoint_and_together_those_of_one(
    store: SpectrogramStore, expected: Callable[[int], Batch], tier: TierName
) -> None:
    ranks = [feed(store, tier, rank, 3).from_step(0) for rank in range(3)]
    for step in range(3):
        whole = expected(step)
        for rank, batches in enumerate(ranks):
            share = next(batches)
            assert torch.equal(share.mixture, whole.mixture[rank::3])
            assert torch.equal(share.vocals, whole.vocals[rank::3])


@pytest.mark.parametrize("tier", ["host", "stream"])
def test_batches_in_flight_are_not_overwritten(
    store: SpectrogramStore, expected: Callable[[int], Batch], tier: TierName, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(PREFETCH_DEPTH + 8):
        expected(step)
    made = 0
    make = PatchMaker.make

    def counted(self: PatchMaker, draws: Draws, out: Batch | None = None) -> Batch:
        nonlocal made
        batch = make(self, draws, out)
        made += 1
        return batch

    monkeypatch.setattr(PatchMaker, "make", counted)
    in_flight: list[tuple[int, Batch]] = []
    for step, batch in zip(range(PREFETCH_DEPTH + 8), feed(store, tier).from_step(0), strict=False):
        in_flight = [*in_flight, (step, batch)][-HELD_BY_TRAINING:]
        # The thread goes as far ahead as it can: its queue is full, and it holds one more.
        ahead = PREFETCH_DEPTH + 1 if tier == "stream" else 0
        deadline = time.monotonic() + 600
        while made < step + 1 + ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        assert made == step + 1 + ahead
        for number, held in in_flight:
            assert_equal(held, expected(number))


def test_memory_of_batches_is_used_again(store: SpectrogramStore) -> None:
    addresses = {
        batch.mixture.data_ptr() for _, batch in zip(range(20), feed(store, "host").from_step(0), strict=False)
    }
    assert len(addresses) <= HELD_BY_TRAINING + PREFETCH_DEPTH + 1


@pytest.mark.parametrize("tier", ["host", "stream"])
def test_time_spent_waiting_for_data_is_counted(store: SpectrogramStore, tier: TierName) -> None:
    batches = feed(store, tier)
    assert batches.seconds_waited == 0
    started = time.perf_counter()
    for _ in zip(range(5), batches.from_step(0), strict=False):
        pass
    assert 0 < batches.seconds_waited < time.perf_counter() - started


@pytest.mark.usefixtures("_no_thread_is_left")
def test_no_thread_is_left_when_training_takes_no_more_batches(store: SpectrogramStore) -> None:
    before = set(threading.enumerate())
    batches = feed(store, "stream").from_step(0)
    next(batches)
    assert set(threading.enumerate()) - before


@pytest.mark.usefixtures("_no_thread_is_left")
def test_shard_that_is_gone_is_told_to_the_training_not_only_to_the_thread(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", (Made(300), Made(300)))
    for track in store.tracks("train"):
        (store.path / track.arrays["vocals"].shard).unlink()
    with pytest.raises(UserError, match="shard is missing"):
        next(feed(store, "stream").from_step(0))
