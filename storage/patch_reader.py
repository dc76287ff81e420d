"""Random access to patches: `(track, source, channel, start frame)` to `(frames, bins)` arrays."""

import os
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from storage.manifest import ArrayRecord, TrackRecord
from storage.shards import Array, ZarrShard, open_shard
from storage.store import SpectrogramStore

MAXIMUM_OPEN_MAPS = 1024
MAXIMUM_CACHE_BYTES = 256 << 20

Patch = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Item = TypeVar("Item")

_HALF_INFINITY = 0x7C00  # in float16 bits: NaN and all negative numbers follow
_MANTISSA_SHIFT = 23 - 10
_EXPONENT_SCALE = np.float32(2.0 ** (127 - 15))


class PatchReader:
    """Reads patches of a store's spectrograms, through memory maps where shards are uncompressed, else through zarr.

    At most `MAXIMUM_OPEN_MAPS` shards are open at a time, and at most `MAXIMUM_CACHE_BYTES` of decoded chunks are kept;
    what was used least recently leaves first. Open shards hold no file descriptors.

    Threads may share a reader, forked processes inherit it, and a pickled one starts with nothing open.

    Parameters
    ----------
    threads
        That share the work of a batch, the caller's included.
    """

    def __init__(self, store: SpectrogramStore, threads: int = 1) -> None:
        self._store = store
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = 0
        self._shards: _Recent[Array | ZarrShard] = _Recent()
        self._chunks: _Recent[Array] = _Recent()
        self._largest_chunk = 1

    def __reduce__(self) -> tuple[type["PatchReader"], tuple[SpectrogramStore, int]]:
        return PatchReader, (self._store, self._threads)

    def read(self, track: TrackRecord, source: str, channel: int, start: int, out: Patch) -> None:
        """Copy frames `start ... start + len(out)` of one channel into `out`, `(frames, bins)`; zeros after the end.

        `out` is float16 or float32, whichever of them is stored.

        Raises
        ------
        IndexError
            If `channel` or `start` lies outside the track.
        UserError
            If the shard is missing or damaged.
        """
        if not (0 <= channel < track.channels and 0 <= start < max(1, track.frames)):
            raise IndexError(
                f"channel {channel}, start frame {start} of track {track.id} "
                f"with {track.channels} channels, {track.frames} frames"
            )
        stop = start + len(out)
        if stop > track.frames:
            stop = track.frames
            out[stop - start :] = 0
            out = out[: stop - start]
        record = track.arrays[source]
        shard = self._shard(record)
        if isinstance(shard, ZarrShard):
            self._read_chunks(shard, record, channel, start, out)
        else:
            _convert(shard[channel, start:stop], out)

    def read_batch(self, requests: Sequence[tuple[TrackRecord, int, int]], out: Mapping[str, Iterable[Patch]]) -> None:
        """Read the same places of one source or of several.

        Parameters
        ----------
        requests
            Track, channel and start frame of every patch.
        out
            Name of a source to its buffer: `(batch, frames, bins)`, or as many arrays `(frames, bins)`; see `read`.

        Raises
        ------
        IndexError, UserError
            As `read`.
        ValueError
            If a buffer has room for more or fewer patches than are asked for.
        """
        jobs = iter(
            [
                (track, source, channel, start, patch)
                for source, patches in out.items()
                for (track, channel, start), patch in zip(requests, patches, strict=True)
            ]
        )

        def work() -> None:
            for job in jobs:
                self.read(*job)

        helpers = [self._helpers().submit(work) for _ in range(self._threads - 1)]
        try:
            work()
        finally:
            for _ in jobs:  # after an error, nobody shall start another one
                pass
            started = [helper for helper in helpers if not helper.cancel()]
            wait(started)
        for helper in started:
            helper.result()

    def _helpers(self) -> ThreadPoolExecutor:
        # A forked process has none of its parent's threads.
        if self._pool is None or self._pool_process != os.getpid():
            self._pool, self._pool_process = ThreadPoolExecutor(self._threads - 1, "patches"), os.getpid()
        return self._pool

    def _shard(self, record: ArrayRecord) -> Array | ZarrShard:
        # A track that is made again lies at the same path with another checksum.
        key = (record.shard, record.crc32c)
        shard = self._shards.get(key)
        if shard is None:
            shard = open_shard(self._store.path / record.shard, record)
            self._shards.put(key, shard, MAXIMUM_OPEN_MAPS)
        return shard

    def _read_chunks(self, shard: ZarrShard, record: ArrayRecord, channel: int, start: int, out: Patch) -> None:
        """Copy `(frames, bins)` from decoded chunks; those that are not kept are decoded in one call of zarr."""
        length, stop = record.chunk_length, start + len(out)
        keys = {
            number: (record.shard, record.crc32c, channel, number)
            for number in range(start // length, -(-stop // length))
        }
        chunks = {number: chunk for number, key in keys.items() if (chunk := self._chunks.get(key)) is not None}
        missing = [number for number in keys if number not in chunks]
        if missing:
            first = missing[0] * length
            decoded = shard[channel, first : (missing[-1] + 1) * length]
            for number in missing:
                # A copy, since a view would keep the other chunks alive.
                chunk = chunks[number] = decoded[number * length - first :][:length].copy()
                self._largest_chunk = max(self._largest_chunk, chunk.nbytes)
                self._chunks.put(keys[number], chunk, MAXIMUM_CACHE_BYTES // self._largest_chunk)
        for number, chunk in chunks.items():
            begin = max(start, number * length)
            part = chunk[begin - number * length : stop - number * length]
            _convert(part, out[begin - start :][: len(part)])


class _Recent(Generic[Item]):
    """The items that were used last.

    Every step is one atomic operation of the dictionary, so that threads need no lock, which a fork could leave locked.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[Hashable, Item] = OrderedDict()

    def get(self, key: Hashable) -> Item | None:
        try:
            self._items.move_to_end(key)
            return self._items[key]
        except KeyError:
            return None

    def put(self, key: Hashable, item: Item, limit: int) -> None:
        self._items[key] = item
        while len(self._items) > limit:
            try:
                self._items.popitem(last=False)
            except KeyError:  # another thread was faster
                return


def _convert(stored: Array, out: Patch) -> None:
    """Copy `stored` to `out`, with conversion between float16 and float32."""
    if stored.dtype == np.float16 and out.dtype == np.float32:
        bits = stored.view(np.uint16)
        # numpy converts one number at a time. Magnitudes, finite and not negative, go twice to four times as fast with
        # their bits moved to float32's places and the exponent's offset corrected by an exact multiplication.
        if bits.max(initial=0) < _HALF_INFINITY:
            words = out.view(np.uint32)
            np.copyto(words, bits)
            np.left_shift(words, _MANTISSA_SHIFT, out=words)
            np.multiply(out, _EXPONENT_SCALE, out=out)
            return
    np.copyto(out, stored, casting="same_kind")
