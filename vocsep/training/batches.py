"""The batches of a run's steps."""

import time
from collections.abc import Generator, Iterator

import torch

from vocsep.patches.batch import Batch
from vocsep.patches.maker import PatchMaker
from vocsep.patches.pool import SongPool
from vocsep.patches.prefetch import PREFETCH_DEPTH, prefetched
from vocsep.patches.sampling import Draws, PatchSampler
from vocsep.patches.tiers import PatchTier
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.config import TrainConfig


def patch_sampler(config: TrainConfig, pool: SongPool) -> PatchSampler:
    """What a training of these settings draws its patches with."""
    return PatchSampler(
        pool,
        batch_size=config.batch_size,
        frames=PATCH_FRAMES,
        augmentation=config.augmentation,
        seed=config.seed,
        is_silent=pool.is_silent,
    )


# One is in use, some wait in the queue, and one is being made.
BATCHES_IN_MEMORY = 1 + PREFETCH_DEPTH + 1


class StepBatches:
    """The batches of the steps, of this process's share."""

    def __init__(self, tier: PatchTier, sampler: PatchSampler, config: TrainConfig, rank: int, processes: int) -> None:
        self._sampler = sampler
        self._maker = PatchMaker(
            tier,
            frames=PATCH_FRAMES,
            seed=config.seed,
            with_accompaniment=config.compares_accompaniment,
            # The thread that works ahead of the steps would take turns with theirs.
            threads=1 if tier.name == "stream" else torch.get_num_threads(),
        )
        self._rank = rank
        self._processes = processes
        self._streamed = tier.name == "stream"
        self.seconds_waited = 0.0

    def from_step(self, first: int) -> Generator[Batch, None, None]:
        """The batches of the steps from `first` on (0 is the first of all), each valid until the next is taken."""
        batches = prefetched(self._batches(first)) if self._streamed else self._batches(first)
        while True:
            started = time.perf_counter()
            batch = next(batches)
            self.seconds_waited += time.perf_counter() - started
            yield batch

    def places(self, step: int) -> list[str]:
        """Where each patch of this process's share of a step comes from, for people."""
        return self._sampler.places(self._draw(step))

    def _draw(self, step: int) -> Draws:
        return self._sampler.draw(step).share(self._rank, self._processes)

    def _batches(self, step: int) -> Iterator[Batch]:
        used: list[Batch | None] = [None] * BATCHES_IN_MEMORY
        while True:
            slot = step % BATCHES_IN_MEMORY
            batch = used[slot] = self._maker.make(self._draw(step), used[slot])
            yield batch
            step += 1
