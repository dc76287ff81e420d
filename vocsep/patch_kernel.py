"""Patches made on the processor, in compiled code.

Every channel of a patch goes through all its changes while it lies in the processor's caches. The same by operations on
whole arrays takes more than twice as long: it waits for memory.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vocsep.sampling import Flags, Floats, Integers

# The bits of float16, and what it takes to make them those of float32. All of 32 bits, as the numbers that they meet:
# a single wider one would halve the speed.
_SIGN, _EXPONENT, _MAGNITUDE = np.uint32(0x8000), np.uint32(0x7C00), np.uint32(0x7FFF)
_SIGN_SHIFT, _SHIFT = np.uint32(31 - 15), np.uint32(23 - 10)
_OFFSET, _OFFSET_OF_SUBNORMAL, _OFFSET_OF_INFINITE = np.uint32(112 << 23), np.uint32(113 << 23), np.uint32(224 << 23)
_SMALLEST_NORMAL = np.float32(2.0**-14)
_ONE = np.uint32(127 << 23)
_ZERO, _NEXT = np.uint32(0), np.uint32(1)


class StoredRows(NamedTuple):
    """One source of some patches, as it is stored.

    Attributes
    ----------
    rows
        `(rows, bins)`, float32, or float16 as its bits in uint16.
    first
        `(patches, channels)`: the row of a patch's first frame.
    available
        `(patches,)`: how many rows there are from there on. What is wanted beyond them is 0.
    frames
        `(patches,)`: how many frames become those of the patch.
    taken, filled
        `(patches,)`: so many of the lowest bins become so many of the patch; the others are 0.
    gain
        `(patches,)`: factor.
    """

    rows: NDArray[np.uint16] | Floats
    first: Integers
    available: Integers
    frames: Integers
    taken: Integers
    filled: Integers
    gain: Floats


@njit(nogil=True)
def _value(stored: np.uint16 | np.float32, is_half: bool) -> np.float32:
    """A stored number as float32; of float16, infinities, NaN and subnormal numbers included."""
    if not is_half:
        return np.float32(stored)
    bits = np.uint32(stored)
    word, exponent = (bits & _MAGNITUDE) << _SHIFT, bits & _EXPONENT
    value = np.uint32(word + _OFFSET).view(np.float32)
    # Exact, and with no subnormal float32, which some processors are slow at.
    subnormal = np.uint32(word + _OFFSET_OF_SUBNORMAL).view(np.float32) - _SMALLEST_NORMAL
    infinite = np.uint32(word + _OFFSET_OF_INFINITE).view(np.float32)
    value = subnormal if exponent == _ZERO else value
    value = infinite if exponent == _EXPONENT else value
    return value * np.uint32((bits & _SIGN) << _SIGN_SHIFT | _ONE).view(np.float32)


@njit(nogil=True)
def _place(index: int, old: int, new: int) -> tuple[int, np.float32]:
    """Where one of `new` places lies among `old` ones: the place before it, and the way to the next in [0, 1)."""
    place = max(0.0, (index + 0.5) * (old / new) - 0.5)
    before = min(int(place), old - 1)
    return before, np.float32(place - before if before < old - 1 else 0.0)


@njit(nogil=True, cache=True)
def _fill(source: StoredRows, patch: int, channel: int, out: Floats) -> None:
    """One channel of one source of a patch, `(frames, bins)`, with its changes."""
    rows, first, available = source.rows, source.first[patch, channel], source.available[patch]
    is_half = rows.itemsize == 2
    frames, bins = out.shape
    taken, filled = source.taken[patch], source.filled[patch]
    is_stretched = taken != filled
    line = np.zeros(bins + 1, dtype=np.float32)
    before, way = np.empty(bins, dtype=np.uint32), np.empty(bins, dtype=np.float32)
    if is_stretched:
        for index in range(filled):
            before[index], way[index] = _place(index, taken, filled)
    for frame in range(frames):
        row, share = _place(frame, source.frames[patch], frames)
        if row >= available:
            out[frame:] = 0
            return
        made = line if is_stretched else out[frame]
        here, there = source.gain[patch] * (np.float32(1) - share), source.gain[patch] * share
        if share > 0 and row + 1 < available:
            for index in range(bins):
                left, right = rows[first + row, index], rows[first + row + 1, index]
                made[index] = _value(left, is_half) * here + _value(right, is_half) * there
        else:
            for index in range(bins):
                made[index] = _value(rows[first + row, index], is_half) * here
        if is_stretched:
            for index in range(filled):
                value = line[before[index]]
                out[frame, index] = value + (line[before[index] + _NEXT] - value) * way[index]
            out[frame, filled:] = 0


@njit(nogil=True, cache=True)
def _mix(vocals: Floats, accompaniment: Floats, cosines: Floats, out: Floats) -> None:
    """Magnitude of the sum of two sources, each `(frames, bins)`; see `vocsep.augmentation.remix_magnitudes`."""
    frames, bins = out.shape
    for frame in range(frames):
        for index in range(bins):
            v, a = vocals[frame, index], accompaniment[frame, index]
            power = (a + np.float32(2) * v * cosines[frame * bins + index]) * a + v * v
            # NaN stays what it is.
            out[frame, index] = np.sqrt(np.float32(0) if power < np.float32(0) else power)


@njit(nogil=True, cache=True)
def fill_patches(
    start: int,
    stop: int,
    vocals: StoredRows,
    accompaniment: StoredRows,
    mixture: StoredRows,
    remixed: Flags,
    phase: Integers,
    cosines: Floats,
    vocals_out: Floats,
    accompaniment_out: Floats,
    mixture_out: Floats,
) -> None:
    """Make some of the patches of a batch. Several threads can do so at the same time: it needs no lock of Python.

    Parameters
    ----------
    start, stop
        From which one up to which, the last not included.
    vocals, accompaniment, mixture
        Of the mixture, those that are not `remixed` are read, of the accompaniment the others, or all if there is room
        for it.
    phase
        `(patches,)`: where the cosines of each patch's phases begin.
    cosines
        `(entries,)`.
    vocals_out, accompaniment_out, mixture_out
        For the results, `(patches, channels, frames, bins)` float32; that of the accompaniment can have no patches.
    """
    _, channels, frames, bins = vocals_out.shape
    is_wanted = len(accompaniment_out) > 0
    spare = np.empty((frames, bins), dtype=np.float32)
    for patch in range(start, stop):
        for channel in range(channels):
            voice, mix = vocals_out[patch, channel], mixture_out[patch, channel]
            rest = accompaniment_out[patch, channel] if is_wanted else spare
            _fill(vocals, patch, channel, voice)
            if is_wanted or remixed[patch]:
                _fill(accompaniment, patch, channel, rest)
            if remixed[patch]:
                _mix(voice, rest, cosines[phase[patch] :], mix)
            else:
                _fill(mixture, patch, channel, mix)
