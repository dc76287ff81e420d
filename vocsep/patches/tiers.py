"""Where training patches are read from: device memory, host memory, or the store's shards: the fastest that fits.

All of them give the same values.
"""

from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vocsep.arrays import Integers
from vocsep.memory import usable_memory
from vocsep.patches.pool import SongPool, training_bytes

TierName = Literal["device", "host", "stream"]

# The share of free memory that the training songs may take: the network and its activations need the rest.
MEMORY_SHARE = 0.5


class Excerpts(NamedTuple):
    """Where some excerpts of one source are.

    Attributes
    ----------
    rows
        `(rows, bins)`, float16 or float32 as stored: frames of the songs' channels.
    first
        `(excerpts, channels)`: the row of an excerpt's first frame.
    available
        `(excerpts,)`: how many of its frames there are, one row after the other; those after the end of a song are 0.
    """

    rows: Tensor
    first: Integers
    available: Integers


class PatchTier(Protocol):
    """Gives excerpts of the training songs.

    Attributes
    ----------
    device
        Where the excerpts are.
    channels, bins
        Of every excerpt.
    """

    name: TierName
    device: torch.device
    channels: int
    bins: int

    def excerpts(self, source: str, track: Integers, channel: Integers, start: Integers, frames: Integers) -> Excerpts:
        """One excerpt per entry; good until this is called again for the same source.

        `channel` comes first, then the song's next ones, in a circle.

        Raises
        ------
        IndexError
            If an index is beyond the last training song.
        """
        ...


class ResidentTier:
    """All training songs in the memory of one device, one after the other."""

    def __init__(self, pool: SongPool, sources: tuple[str, ...], channels: int, device: torch.device) -> None:
        self.name: TierName = "host" if device.type == "cpu" else "device"
        self.device = device
        self.channels = channels
        self.bins = bins_of(pool)
        self._frames = np.array([track.frames for track in pool.tracks], dtype=np.int64)
        self._song_channels = np.array([track.channels for track in pool.tracks], dtype=np.int64)
        self._first_row: dict[str, Integers] = {}
        self._rows: dict[str, Tensor] = {}
        for source in sources:
            held = np.array([source in track.arrays for track in pool.tracks])
            first = np.concatenate([[0], np.cumsum(self._frames * self._song_channels * held)])
            whole = torch.empty((int(first[-1]), self.bins), dtype=_stored_type(pool, source), device=device)
            for index in map(int, np.flatnonzero(held)):
                song = torch.from_numpy(np.array(pool.store(index).array(pool.tracks[index], source)))
                whole[first[index] : first[index + 1]] = song.view(-1, self.bins).to(device)
            self._first_row[source], self._rows[source] = first, whole

    def excerpts(self, source: str, track: Integers, channel: Integers, start: Integers, frames: Integers) -> Excerpts:
        """See `PatchTier.excerpts`."""
        length = self._frames[track]
        channels = (channel[:, None] + np.arange(self.channels)) % self._song_channels[track][:, None]
        first = (self._first_row[source][track] + start)[:, None] + channels * length[:, None]
        return Excerpts(self._rows[source], first, np.minimum(frames, length - start))


class StreamTier:
    """Excerpts from the stores' shards as they are needed."""

    name: TierName = "stream"
    device = torch.device("cpu")

    def __init__(self, pool: SongPool, channels: int) -> None:
        self._pool = pool
        self.channels = channels
        self.bins = bins_of(pool)
        self._rows: dict[str, Tensor] = {}

    def excerpts(self, source: str, track: Integers, channel: Integers, start: Integers, frames: Integers) -> Excerpts:
        """See `PatchTier.excerpts`."""
        songs = [self._pool.tracks[index] for index in track]
        available = np.minimum(frames, np.array([song.frames for song in songs]) - start)
        ends = np.cumsum(np.repeat(available, self.channels)).reshape(-1, self.channels)
        first = ends - available[:, None]
        rows = self._room(source, int(ends[-1, -1]))
        stored = rows.numpy()
        for item, song in enumerate(songs):
            reader = self._pool.reader(track[item])
            for index, row in enumerate(first[item]):
                one = int(channel[item] + index) % song.channels
                reader.read(song, source, one, int(start[item]), stored[row : row + available[item]])
        return Excerpts(rows, first, available)

    def _room(self, source: str, count: int) -> Tensor:
        """Memory for `count` rows, the same one as before if it is large enough."""
        rows = self._rows.get(source)
        if rows is None or len(rows) < count:
            rows = self._rows[source] = torch.empty((count, self.bins), dtype=_stored_type(self._pool, source))
        return rows


def bins_of(pool: SongPool) -> int:
    """Bins of the pool's spectrograms."""
    return next(iter(pool.tracks[0].arrays.values())).shape[2]


def _stored_type(pool: SongPool, source: str) -> torch.dtype:
    types = {track.arrays[source].dtype for track in pool.tracks if source in track.arrays}
    return torch.float32 if "float32" in types else torch.float16


def gather_rows(excerpts: Excerpts, out: Tensor) -> None:
    """Copy excerpts to `out`, `(excerpts, channels, frames, bins)`, all at once on a device; zeros after their ends."""
    rows, first, available = excerpts
    offset = torch.arange(out.shape[2], device=rows.device)
    inside = offset < torch.from_numpy(available).to(rows.device)[:, None, None]
    wanted = torch.from_numpy(first).to(rows.device)[..., None] + offset * inside
    gathered = rows.index_select(0, wanted.flatten()).view_as(out)
    torch.mul(gathered, inside[..., None], out=out)


def open_tier(
    pool: SongPool,
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
    size = training_bytes(pool.tracks, sources)
    text = f"{size / 1e9:.2f} GB of training patches"
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if wanted == "device" or (wanted == "auto" and size <= MEMORY_SHARE * free):
            return ResidentTier(pool, sources, channels, device), f"{text}, resident on {device}"
    free = usable_memory()
    if wanted in ("device", "host") or (wanted == "auto" and size <= MEMORY_SHARE * free):
        return ResidentTier(pool, sources, channels, torch.device("cpu")), f"{text}, resident in host memory"
    return StreamTier(pool, channels), f"{text}, streamed from the store ({free / 1e9:.1f} GB of memory are free)"
