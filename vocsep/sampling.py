"""Random training patches: which ones, and what they are mixed from.

Every batch depends on nothing but the store, the seed and the step.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import UserError
from storage.manifest import TrackRecord
from storage.patches import PatchReader
from storage.store import SpectrogramStore

Patches = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """Patches `(batch, channels, frames, bins)` float32, and the names of the songs that they come from."""

    mixture: Patches
    vocals: Patches
    songs: tuple[str, ...]


class PatchSampler:
    """Draws batches of patches from the training songs of a store.

    A song is drawn with a probability proportional to its length, then a start frame uniformly over all possible
    ones, the last included; a song shorter than a patch is padded with zeros. With probability `remix` the vocals of
    one place are mixed with the accompaniment of another, of any song; else the song's own mixture is used.

    The magnitude of a remix needs the phases, which are not stored; they are drawn at random instead:
    |V + A|^2 = V^2 + A^2 + 2 V A cos(phi), phi uniform and common to the channels.

    Parameters
    ----------
    channels
        1 takes one random channel of a song, 2 takes both (mono songs stand in both).
    frames
        Frames per patch.
    """

    def __init__(
        self, store: SpectrogramStore, *, batch_size: int, channels: int, frames: int, remix: float, seed: int
    ) -> None:
        self._tracks = store.tracks("train")
        if not self._tracks:
            raise UserError(f"{store.path}: no training songs in the store; run `make preprocess` with a train split")
        self._reader = PatchReader(store)
        self._bins = self._tracks[0].arrays["mixture"].shape[2]
        lengths = np.array([track.frames for track in self._tracks], dtype=np.float64)
        self._probabilities = lengths / lengths.sum()
        self._batch_size = batch_size
        self._channels = channels
        self._frames = frames
        self._remix = remix
        self._seed = seed

    def batches(self, first_step: int = 0) -> Iterator[Batch]:
        """Endless batches, beginning with that of `first_step`."""
        step = first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        random = np.random.default_rng((self._seed, step))
        shape = (self._batch_size, self._channels, self._frames, self._bins)
        mixture = np.empty(shape, dtype=np.float32)
        vocals = np.empty(shape, dtype=np.float32)
        remixed = random.random(self._batch_size) < self._remix
        names: list[str] = []
        for item in range(self._batch_size):
            place = self._draw_place(random)
            self._read(place, "vocals", vocals[item])
            names.append(place[0].name)
            if remixed[item]:
                place = self._draw_place(random)
                names.append(place[0].name)
            self._read(place, "accompaniment" if remixed[item] else "mixture", mixture[item])
        if remixed.any():
            mixture[remixed] = remix_magnitudes(vocals[remixed], mixture[remixed], random)
        return Batch(mixture, vocals, tuple(sorted(set(names))))

    def _draw_place(self, random: np.random.Generator) -> tuple[TrackRecord, int, int]:
        """A track, one of its channels and a start frame."""
        track = self._tracks[random.choice(len(self._tracks), p=self._probabilities)]
        starts = max(1, track.frames - self._frames + 1)
        return track, int(random.integers(track.channels)), int(random.integers(starts))

    def _read(self, place: tuple[TrackRecord, int, int], source: str, out: Patches) -> None:
        track, channel, start = place
        if self._channels == 1:
            self._reader.read(track, source, channel, start, out[0])
        else:
            for index in range(self._channels):
                self._reader.read(track, source, min(index, track.channels - 1), start, out[index])


def remix_magnitudes(vocals: Patches, accompaniment: Patches, random: np.random.Generator) -> Patches:
    """Magnitude of a sum whose phases are unknown: |V + A| for a random relative phase per frame and bin.

    Both `(batch, channels, frames, bins)`; the phase is common to the channels.
    """
    shape = (vocals.shape[0], 1, *vocals.shape[2:])
    cosine = np.cos(random.random(shape, dtype=np.float32) * np.float32(2 * np.pi))
    power = vocals**2 + accompaniment**2 + 2 * vocals * accompaniment * cosine
    magnitude: Patches = np.sqrt(np.maximum(power, 0))
    return magnitude


def prefetched(batches: Iterator[Batch], depth: int = 2) -> Iterator[Batch]:
    """The same batches, made by a thread up to `depth` ahead of their use; what it raises is raised here."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=fill, name="patches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
