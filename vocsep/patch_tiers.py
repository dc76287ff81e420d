"""Where training patches are read from: device memory, host memory, or the store's shards: the fastest that fits.

All of them give the same values.
"""

import math
from typing import Literal, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from storage.manifest import TrackRecord
from storage.patches import PatchReader
from storage.store import SpectrogramStore
from vocsep.sampling import Integers

TierName = Literal["device", "host", "stream"]

# The share of free memory that the training songs may take: the network and its activations need the rest.
MEMORY_SHARE = 0.5


class PatchTier(Protocol):
    """Gives excerpts of the training songs as float32 tensors.

    Attributes
    ----------
    device
        Where the excerpts lie.
    channels, bins
        Of every excerpt.
    together
        Whether many excerpts are best read, and worked on, at once: true of devices where every call costs more than
        its work. On a CPU one after the other is faster, since each then stays in the processor's cache.
    """

    name: TierName
    device: torch.device
    channels: int
    bins: int
    together: bool

    def read(
        self, source: str, track: Integers, channel: Integers, start: Integers, frames: int, out: Tensor | None = None
    ) -> Tensor:
        """`(len(track), channels, frames, bins)` float32, in `out` if given; zeros after the end of a song.

        `channel` comes first, then the song's next ones, in a circle.
        """
        ...


class ResidentTier:
    """All training songs in the memory of one device, one after the other."""

    def __init__(self, store: SpectrogramStore, sources: tuple[str, ...], channels: int, device: torch.device) -> None:
        tracks = store.tracks("train")
        self.name: TierName = "host" if device.type == "cpu" else "device"
        self.device = device
        self.together = device.type != "cpu"
        self.channels = channels
        self.bins = tracks[0].arrays[sources[0]].shape[2]
        self._frames = np.array([track.frames for track in tracks], dtype=np.int64)
        self._song_channels = np.array([track.channels for track in tracks], dtype=np.int64)
        rows = self._frames * self._song_channels
        self._first_row = np.concatenate([[0], np.cumsum(rows)])
        self._rows: dict[str, Tensor] = {}
        for source in sources:
            kind = torch.float16 if tracks[0].arrays[source].dtype == "float16" else torch.float32
            whole = torch.empty((int(rows.sum()), self.bins), dtype=kind, device=device)
            for index, track in enumerate(tracks):
                song = torch.from_numpy(np.array(store.array(track, source))).view(-1, self.bins)
                whole[self._first_row[index] : self._first_row[index + 1]] = song.to(device)
            self._rows[source] = whole

    def read(
        self, source: str, track: Integers, channel: Integers, start: Integers, frames: int, out: Tensor | None = None
    ) -> Tensor:
        """See `PatchTier.read`."""
        if out is None:
            out = torch.empty((len(track), self.channels, frames, self.bins), device=self.device)
        length = self._frames[track]
        channels = (channel[:, None] + np.arange(self.channels)) % self._song_channels[track][:, None]
        first = (self._first_row[track] + start)[:, None] + channels * length[:, None]
        move = gather_rows if self.together else copy_rows
        move(self._rows[source], first, np.minimum(frames, length - start), out)
        return out


class StreamTier:
    """Patches from the store's shards as they are needed."""

    name: TierName = "stream"
    device = torch.device("cpu")
    together = False

    def __init__(self, store: SpectrogramStore, channels: int) -> None:
        self._tracks = store.tracks("train")
        self._reader = PatchReader(store)
        self.channels = channels
        self.bins = self._tracks[0].arrays["vocals"].shape[2]

    def read(
        self, source: str, track: Integers, channel: Integers, start: Integers, frames: int, out: Tensor | None = None
    ) -> Tensor:
        """See `PatchTier.read`."""
        if out is None:
            out = torch.empty((len(track), self.channels, frames, self.bins))
        # Read as stored, and converted by torch, which is faster than numpy at it.
        stored = np.empty((frames, self.bins), dtype=self._tracks[0].arrays[source].dtype)
        for item, song in enumerate(self._tracks[index] for index in track):
            for index in range(self.channels):
                one = int(channel[item] + index) % song.channels
                self._reader.read(song, source, one, int(start[item]), stored)
                out[item, index].copy_(torch.from_numpy(stored))
        return out


def copy_rows(rows: Tensor, first: Integers, available: Integers, out: Tensor) -> None:
    """Fill each `out[i, c]` with the rows from `first[i, c]` on, zeros after `available[i]` of them, one by one.

    Parameters
    ----------
    rows
        `(rows, bins)`.
    out
        `(items, channels, frames, bins)`.
    """
    frames = out.shape[2]
    for item, (places, length) in enumerate(zip(first.tolist(), available.tolist(), strict=True)):
        for index, row in enumerate(places):
            patch = out[item, index]
            if length < frames:
                patch[length:] = 0
                patch = patch[:length]
            patch.copy_(rows[row : row + length])


def gather_rows(rows: Tensor, first: Integers, available: Integers, out: Tensor) -> None:
    """The same as `copy_rows`, all at once."""
    offset = torch.arange(out.shape[2], device=rows.device)
    inside = offset < torch.from_numpy(available).to(rows.device)[:, None, None]
    wanted = torch.from_numpy(first).to(rows.device)[..., None] + offset * inside
    gathered = rows.index_select(0, wanted.flatten()).view_as(out)
    torch.mul(gathered, inside[..., None], out=out)


def training_bytes(tracks: list[TrackRecord], sources: tuple[str, ...]) -> int:
    """Bytes of the named spectrograms of all tracks in memory."""
    arrays = [track.arrays[source] for track in tracks for source in sources]
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)


def open_tier(
    store: SpectrogramStore,
    sources: tuple[str, ...],
    channels: int,
    device: torch.device,
    wanted: Literal["auto", "device", "host", "stream"] = "auto",
) -> tuple[PatchTier, str]:
    """The fastest tier that fits, or the one that is wanted, and one line that says which and why.

    Parameters
    ----------
    sources
        Names of the spectrograms that training reads.
    channels
        Of the network.
    device
        That the network is on.
    """
    size = training_bytes(store.tracks("train"), sources)
    text = f"{size / 1e9:.2f} GB of training patches"
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if wanted == "device" or (wanted == "auto" and size <= MEMORY_SHARE * free):
            return ResidentTier(store, sources, channels, device), f"{text}, resident on {device}"
    free = psutil.virtual_memory().available
    if wanted in ("device", "host") or (wanted == "auto" and size <= MEMORY_SHARE * free):
        return ResidentTier(store, sources, channels, torch.device("cpu")), f"{text}, resident in host memory"
    return StreamTier(store, channels), f"{text}, streamed from the store ({free / 1e9:.1f} GB of memory are free)"
