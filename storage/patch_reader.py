"""Random access to patches: `(track, source, channel, start frame)` to `(frames, bins)` arrays."""

import functools
import resource
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.manifest import ArrayRecord, TrackRecord
from storage.shards import Array, ZarrShard, open_shard
from storage.store import SpectrogramStore


def _most_open_shards() -> int:
    """Half of the files that this process may open, since a memory map keeps its file open; at most 1024."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if soft == resource.RLIM_INFINITY else min(1024, soft // 2)


class PatchReader:
    """Reads patches of a store's spectrograms, through memory maps where shards are uncompressed, else through zarr.

    Shards stay open; where there are too many for the system, those that were used least recently are closed. Threads
    may share a reader, forked processes inherit it, and a pickled one starts with nothing open.
    """

    def __init__(self, store: SpectrogramStore) -> None:
        self._store = store
        path = store.path

        # A track that is made again has the same path and another record.
        @functools.lru_cache(_most_open_shards())
        def shard(record: ArrayRecord) -> Array | ZarrShard:
            return open_shard(path / record.shard, record)

        self._shard = shard

    def __reduce__(self) -> tuple[type["PatchReader"], tuple[SpectrogramStore]]:
        return PatchReader, (self._store,)

    def read(self, track: TrackRecord, source: str, channel: int, start: int, out: npt.NDArray[Any]) -> None:
        """Copy frames `start ... start + len(out)` of one channel into `out`, `(frames, bins)`; zeros after the end.

        `out` is float16 or float32, whichever of them is stored.

        Raises
        ------
        IndexError
            If `channel` or `start` is outside the track.
        DamagedError
            If the shard is missing or damaged.
        """
        if not (0 <= channel < track.channels and 0 <= start < max(1, track.frames)):
            raise IndexError(
                f"channel {channel}, start frame {start} of track {track.id} "
                f"with {track.channels} channels, {track.frames} frames"
            )
        available = min(len(out), track.frames - start)
        np.copyto(out[:available], self._shard(track.arrays[source])[channel, start : start + available])
        out[available:] = 0
