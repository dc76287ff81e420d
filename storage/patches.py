"""Random access to patches: `(track, source, channel, start frame)` to `(frames, bins)` arrays."""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from storage.manifest import TrackRecord
from storage.store import SpectrogramStore

MAXIMUM_OPEN_MAPS = 1024


class PatchReader:
    """Reads patches of a store's spectrograms through memory maps.

    At most `MAXIMUM_OPEN_MAPS` shards are mapped at a time; the least recently used one leaves first.
    """

    def __init__(self, store: SpectrogramStore) -> None:
        self._store = store
        self._maps: OrderedDict[tuple[str, str], npt.NDArray[np.generic]] = OrderedDict()

    def read(self, track: TrackRecord, source: str, channel: int, start: int, out: npt.NDArray[np.float32]) -> None:
        """Copy frames `start ... start + len(out)` of one channel into `out`, `(frames, bins)`; zeros after the end.

        Raises
        ------
        IndexError
            If `start` lies outside the track.
        """
        if not 0 <= start < max(1, track.frames):
            raise IndexError(f"start frame {start} of track {track.id} with {track.frames} frames")
        available = min(len(out), track.frames - start)
        out[:available] = self._array(track, source)[channel, start : start + available]
        out[available:] = 0

    def _array(self, track: TrackRecord, source: str) -> npt.NDArray[np.generic]:
        key = (track.id, source)
        array = self._maps.get(key)
        if array is None:
            array = self._maps[key] = self._store.array(track, source)
            if len(self._maps) > MAXIMUM_OPEN_MAPS:
                self._maps.popitem(last=False)
        else:
            self._maps.move_to_end(key)
        return array
