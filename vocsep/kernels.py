"""Compiled code: magnitudes on their way into a store, and patches on their way out of it.

What takes many operations on whole arrays waits for memory. Here a row, or one channel of a patch, goes through all of
them while it is in the processor's caches, which takes a third of the time.

All compiled functions are in this file, since numba keeps what it has compiled until the file changes.
"""

from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vocsep.arrays import Flags, Floats, Integers

# The bits of float16, and what it takes to make them those of float32. All of 32 bits, as the numbers that they meet:
# a single wider one would halve the speed.
_SIGN, _EXPONENT, _MAGNITUDE = np.uint32(0x8000), np.uint32(0x7C00), np.uint32(0x7FFF)
_SIGN_SHIFT, _SHIFT = np.uint32(31 - 15), np.uint32(23 - 10)
_OFFSET, _OFFSET_OF_SUBNORMAL, _OFFSET_OF_INFINITE = np.uint32(112 << 23), np.uint32(113 << 23), np.uint32(224 << 23)
_SMALLEST_NORMAL = np.float32(2.0**-14)
_ONE_HALF, _ONE = np.uint32(126 << 23), np.uint32(127 << 23)
_UNIT, _ALMOST_HALF_A_STEP = np.uint32(1), np.uint32((1 << 12) - 1)
_ZERO = np.uint32(0)
_LARGEST = np.float32(65504)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def _kept(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compiled, and kept for the next process where there is a folder that can be written."""
    try:
        return cast(Callable[Arguments, Result], njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither this file's folder nor the user's: a container, perhaps
        return cast(Callable[Arguments, Result], njit(nogil=True)(function))


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
def _half(magnitude: np.float32) -> np.uint16:
    """The bits of a number from 0 to 65504 as float16, the nearest one, of two the even one."""
    bits = np.float32(magnitude).view(np.uint32)
    normal = (bits - _OFFSET + _ALMOST_HALF_A_STEP + (bits >> _SHIFT & _UNIT)) >> _SHIFT
    # One half and a subnormal number have the steps of the latter, and count them in the last bits.
    subnormal = np.float32(magnitude + np.float32(0.5)).view(np.uint32) - _ONE_HALF
    return np.uint16(subnormal if bits < _OFFSET_OF_SUBNORMAL else normal)


@_kept
def fill_magnitudes(spectra: Floats, first_bin: int, out: NDArray[np.uint16]) -> bool:
    """Magnitudes of mixture, vocals and accompaniment, which is their difference, as float16.

    Parameters
    ----------
    spectra
        `(2, channels, frames, values)`: of mixture and vocals, real and imaginary parts of the bins in turn.
    first_bin
        The one that the result begins with.
    out
        For the bits of the magnitudes, `(3, channels, frames, bins)`.

    Returns
    -------
    are_representable
        Whether none of them is NaN or above 65504, the largest of float16; else `out` holds nonsense.
    """
    _, channels, frames, bins = out.shape
    power = np.empty((3, bins), dtype=np.float32)
    excess = _ZERO
    for channel in range(channels):
        for frame in range(frames):
            mixture, vocals = spectra[0, channel, frame], spectra[1, channel, frame]
            for index in range(bins):
                place = 2 * (first_bin + index)
                real, imaginary = mixture[place], mixture[place + 1]
                vocals_real, vocals_imaginary = vocals[place], vocals[place + 1]
                power[0, index] = real * real + imaginary * imaginary
                power[1, index] = vocals_real * vocals_real + vocals_imaginary * vocals_imaginary
                real -= vocals_real
                imaginary -= vocals_imaginary
                power[2, index] = real * real + imaginary * imaginary
            for source in range(3):
                for index in range(bins):
                    magnitude = np.sqrt(power[source, index])
                    excess |= _ZERO if magnitude <= _LARGEST else _UNIT
                    out[source, channel, frame, index] = _half(magnitude)
    return bool(excess == _ZERO)


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
        `(patches,)`: how many of the lowest bins become how many of the patch; the others are 0.
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
def _place(index: int, old: int, new: int) -> tuple[int, np.float32]:
    """Where one of `new` places is among `old` ones: the place before it, and the way to the next in [0, 1)."""
    place = max(0.0, (index + 0.5) * (old / new) - 0.5)
    before = min(int(place), old - 1)
    return before, np.float32(place - before if before < old - 1 else 0.0)


@_kept
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
                out[frame, index] = value + (line[before[index] + _UNIT] - value) * way[index]
            out[frame, filled:] = 0


@_kept
def _mix(vocals: Floats, accompaniment: Floats, cosines: Floats, out: Floats) -> None:
    """Magnitude of the sum of two sources, each `(frames, bins)`, whose phases differ by angles with these cosines."""
    frames, bins = out.shape
    for frame in range(frames):
        for index in range(bins):
            v, a = vocals[frame, index], accompaniment[frame, index]
            power = (a + np.float32(2) * v * cosines[frame * bins + index]) * a + v * v
            # NaN stays what it is.
            out[frame, index] = np.sqrt(np.float32(0) if power < np.float32(0) else power)


@_kept
def fill_patch(
    patch: int,
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
    """Make one patch of a batch. Several threads can make others at the same time: it needs no lock of Python.

    Parameters
    ----------
    patch
        Its number.
    vocals, accompaniment, mixture
        The mixture is read of patches that are not `remixed`, the accompaniment of the others, or of all if there is
        room for it.
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
