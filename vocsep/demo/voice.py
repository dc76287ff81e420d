"""The singing voice of the songs made by computer.

It is a source-filter model: a glottal pulse with vibrato and portamento, and breath and consonant noise, through
vowels that move. It is called like the parts of the band, see `vocsep.demo.band`.
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.signal

from vocsep.demo.signals import Array, Signal, band_pass, reverb, rms
from vocsep.demo.song import VOICES, Song

# Formants F1, F2, F3 in Hz of men and women: Peterson & Barney, "Control methods used in a study of the
# vowels", JASA 24 (1952), table II.
_VOWELS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "i": ((270, 2290, 3010), (310, 2790, 3310)),
    "e": ((530, 1840, 2480), (610, 2330, 2990)),
    "ae": ((660, 1720, 2410), (860, 2050, 2850)),
    "a": ((730, 1090, 2440), (850, 1220, 2810)),
    "o": ((570, 840, 2410), (590, 920, 2710)),
    "u": ((300, 870, 2240), (370, 950, 2670)),
    "uh": ((640, 1190, 2390), (760, 1400, 2780)),
}
# Consonants: (length in seconds, level of the noise relative to the voice, its band in Hz, level of the voice).
_CONSONANTS: dict[str, tuple[float, float, tuple[int, int], float]] = {
    "s": (0.090, 0.50, (4500, 10000), 0.0),
    "sh": (0.090, 0.60, (2000, 6500), 0.0),
    "f": (0.070, 0.25, (1200, 9000), 0.05),
    "t": (0.030, 0.90, (2500, 9000), 0.0),
    "k": (0.035, 0.80, (1200, 4000), 0.0),
    "m": (0.070, 0.0, (500, 1000), 0.35),
    "l": (0.060, 0.0, (500, 1000), 0.55),
}


def sing(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Sing the notes of a song, near the middle, with some reverberation."""
    _, _, woman, size = VOICES[song.voice]
    size *= rng.uniform(0.95, 1.05)
    step = max(1, rate // 700)  # control rate: about 700 Hz
    control = rate / step
    count = samples // step + 2
    pitch = np.full(count, np.nan)
    level, depth, noisy = np.zeros(count), np.zeros(count), np.zeros(count)
    formants = np.full((3, count), np.nan)
    hiss = {name: np.zeros(count) for name, (_, gain, _, _) in _CONSONANTS.items() if gain}
    vibrato = rng.uniform(0.4, 0.8)
    vowels = [np.array(v[woman]) * size for v in _VOWELS.values()]
    names = list(_CONSONANTS)

    def at(seconds: float) -> int:
        return max(0, int(seconds * control))

    for i, note in enumerate(song.notes):
        start, end = at(note.start), at(note.end)
        # The first pitch of a phrase comes from a little below, as singers do.
        pitch[start:end] = note.midi
        if note.opens:
            pitch[start : start + at(0.03)] = note.midi - 1.5
        last = i + 1 == len(song.notes) or song.notes[i + 1].opens
        level[start:end] = rng.uniform(0.75, 1.0)
        if last:
            tail = slice(max(start, end - at(0.15)), end)
            level[tail] *= np.linspace(1, 0.1, len(level[tail]))
        ramp = np.clip((np.arange(end - start) / control - 0.12) / 0.18, 0, 1)
        depth[start:end] = (vibrato * ramp)[: len(depth[start:end])]
        first, second = rng.choice(len(vowels), 2, replace=False)
        turn = start + int((end - start) * (0.6 if rng.random() < 0.3 else 1))
        formants[:, start:turn] = vowels[first][:, None]
        formants[:, turn:end] = vowels[second][:, None]
        if note.opens and note.start > 0.4:  # the breath taken before a phrase
            noisy[at(note.start - 0.32) : at(note.start - 0.1)] = 0.05
        if rng.random() < (0.9 if note.opens else 0.7):
            name = names[rng.integers(len(names))]
            length, gain, _, voiced = _CONSONANTS[name]
            length = min(length, 0.35 * (note.end - note.start))
            begin = at(note.start) if note.start < length else at(note.start - length)
            stop = begin + at(length) + 1
            level[begin:stop] *= voiced
            if gain:
                hiss[name][begin:stop] = gain * rng.uniform(0.6, 1.0)
            else:
                formants[:, begin:stop] = np.array([[280], [1100 * size], [2300 * size]])

    pitch = _held(pitch)
    pitch = np.apply_along_axis(_smooth, 0, pitch, at(rng.uniform(0.07, 0.12)))
    formants = np.stack([_smooth(_held(f), at(0.07)) for f in formants])
    level, depth = _smooth(level, at(0.03)), _smooth(depth, at(0.1))
    wobble = np.cumsum(rng.uniform(4.8, 6.4) * (1 + 0.06 * _wander(rng, count, at(0.8)))) / control
    sway = np.sin(2 * np.pi * wobble)
    pitch += depth * sway + 0.06 * _wander(rng, count, at(0.02)) + 0.15 * _wander(rng, count, at(0.5))
    level *= 1 + 0.12 * depth * sway + 0.08 * _wander(rng, count, at(0.1))
    grid, time = np.arange(count) * step, np.arange(samples)

    def up(x: Array) -> Array:
        return np.asarray(np.interp(time, grid, x))

    hertz = up(440 * 2 ** ((pitch - 69) / 12))
    phase = np.cumsum(hertz) / rate
    quotient, corner = rng.uniform(0.5, 0.68), rng.uniform(700, 1800)
    white = rng.standard_normal(samples)
    breath = rng.uniform(0.03, 0.1) * (1 + np.cos(2 * np.pi * phase)) / 2
    source = up(level) * (_glottis(phase, hertz, rate, quotient, corner) + breath * white) + up(noisy) * white
    voice = _through_vowels(source, formants, pitch, step, rate, woman, size)
    voice /= rms(voice)
    for name, gains in hiss.items():
        low, high = _CONSONANTS[name][2]
        sharp = name in ("t", "k")
        voice += up(_smooth(gains, at(0.005 if sharp else 0.02))) * band_pass(white, low, high, rate)
    dry = band_pass(voice, 60, 16000, rate)
    side = 10 ** (rng.uniform(-1.5, 1.5) / 20)
    wet = reverb(dry, rate, rng, seconds=rng.uniform(0.5, 1.1), level=rng.uniform(0.12, 0.28))
    return np.asarray(np.stack([dry * side, dry / side]) + wet, np.float32)


def _glottis(phase: Array, hertz: Array, rate: int, quotient: float, corner: float) -> Array:
    """Derivative of the glottal flow at `phase` (periods), without aliases, RMS about 1.

    The pulse is Rosenberg's "C" ("Effect of glottal pulse shape on the quality of natural vowels", JASA 49,
    1971), open for the fraction `quotient` of a period. The return phase of Fant's LF model is added as its
    effect on the spectrum: 6 dB per octave above `corner` Hz.
    """
    size = 2048
    t = np.arange(size) / size
    rise, fall = quotient * 0.7, quotient * 0.3
    flow = np.where(t < rise, 0.5 - 0.5 * np.cos(np.pi * t / rise), np.cos(np.pi / 2 * (t - rise) / fall))
    flow[t > rise + fall] = 0
    harmonics = np.arange(size // 2 + 1)
    spectrum = np.fft.rfft(flow) * harmonics * 1j

    def table(top: float) -> Array:
        return np.asarray(np.fft.irfft(spectrum * (harmonics < rate / 2 / top) / (1 + 1j * harmonics * top / corner)))

    return _wavetable(table, phase, hertz)


def _wavetable(table: Callable[[float], Array], phase: Array, hertz: Array) -> Array:
    """Read one-period tables, made for the highest pitch of each third of an octave, RMS 1 each."""
    size = 2048
    place = np.ceil(3 * np.log2(hertz / 20)).astype(int)
    low = int(place.min())
    rows = np.stack([table(20 * 2 ** (k / 3)) for k in range(low, int(place.max()) + 1)])
    rows /= np.sqrt(np.mean(rows**2, axis=1, keepdims=True))
    where = phase % 1 * size
    left = where.astype(int) % size
    rest = where - left
    row = place - low
    return np.asarray(rows[row, left] * (1 - rest) + rows[row, (left + 1) % size] * rest)


def _through_vowels(
    source: Array, formants: Array, pitch: Array, step: int, rate: int, woman: bool, size: float
) -> Array:
    """Filter by formants of which three move, in overlapping windows of 23 ms.

    The formants are a cascade of digital resonators (Klatt, "Software for a cascade/parallel formant
    synthesizer", JASA 67, 1980) run at 10 kHz, as there; only their magnitude is used. Above 5 kHz the
    response falls on by 12 dB per octave. F1 follows the pitch of high notes (Sundberg, "The science of the
    singing voice", 1987).
    """
    window = 2 ** round(math.log2(0.0232 * rate))
    hop = window // 4
    blocks = len(source) // hop + 5
    padded = np.zeros((blocks + 3) * hop)
    padded[window - hop : window - hop + len(source)] = source
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    center = (np.arange(len(frames)) * hop - window // 2 + hop) / step
    moving = [np.interp(center, np.arange(len(f)), f) for f in formants]
    tone = 440 * 2 ** ((np.interp(center, np.arange(len(pitch)), pitch) - 69) / 12)
    moving[0] = np.maximum(moving[0], tone * 1.03)
    moving[1] = np.maximum(moving[1], moving[0] + 200)
    # The higher ones stay; a trained man has one more near 3 kHz, the singer's formant.
    still = (3500 * size, 4500 * size) if woman else (2950 * size, 3600 * size, 4400 * size)
    tracks = [*moving, *(np.full(len(frames), f) for f in still)]
    bins = np.fft.rfftfreq(2 * window, 1 / rate)
    own = 10000 * size  # the rate at which the resonators run
    cosine = np.cos(2 * np.pi * np.minimum(bins, own / 2) / own).astype(np.float32)
    response = np.ones((len(frames), len(bins)), np.float32)
    for track, width in zip(tracks, (80, 100, 180, 300, 350, 400), strict=False):
        r = math.exp(-math.pi * width / own)
        c = np.cos(2 * np.pi * np.minimum(track, 0.47 * own) / own)
        # |1 - 2 r c z^-1 + r^2 z^-2|^2, a square in cos(w), and 1 at w = 0.
        a0 = (1 + r * r) ** 2 + 4 * r * r * (c * c - 1)
        a1 = -4 * r * (1 + r * r) * c
        unity = a0 + a1 + 4 * r * r
        down = [x[:, None].astype(np.float32) for x in (a0 / unity, a1 / unity, 4 * r * r / unity)]
        response *= down[0] + cosine * (down[1] + cosine * down[2])
    # Singers make up in part for vowels that are weak by nature.
    loudness = np.sum(1 / response / (1 + (bins / 300) ** 2), axis=1, keepdims=True)
    response = np.sqrt(response * loudness**0.7).astype(np.float32)
    tail = np.minimum(1, (own / 2 / np.maximum(bins, 1)) ** 2).astype(np.float32)
    # The window sits in the middle of a frame twice as long, for the filter rings to both sides.
    long = np.zeros((len(frames), 2 * window), np.float32)
    long[:, window // 2 : window // 2 + window] = frames * scipy.signal.windows.hann(window, sym=False) / 2
    shaped = scipy.fft.irfft(scipy.fft.rfft(long, axis=1) * tail / response, n=2 * window, axis=1)
    parts = shaped.reshape(len(frames), -1, hop)
    out = np.zeros((len(frames) + parts.shape[1], hop))
    for i in range(parts.shape[1]):
        out[i : i + len(frames)] += parts[:, i]
    start = window // 2 + window - hop
    return np.asarray(out.reshape(-1)[start : start + len(source)])


def _smooth(x: Array, width: int) -> Array:
    """Running mean with a Hann window of `width` points; the ends are held."""
    width = max(3, width | 1)
    window = scipy.signal.windows.hann(width + 2)[1:-1]
    held = np.pad(x, width // 2, mode="edge")
    return np.asarray(np.convolve(held, window / window.sum(), mode="valid"))


def _wander(rng: np.random.Generator, count: int, width: int) -> Array:
    """Slow noise of RMS 1 that changes within about `width` points."""
    slow = _smooth(rng.standard_normal(count), min(width, count))
    return slow / (np.std(slow) + 1e-9)


def _held(x: Array) -> Array:
    """Fill NaN with the nearest value; an array of only NaN with 60."""
    known = np.flatnonzero(~np.isnan(x))
    if not len(known):
        return np.full(len(x), 60.0)
    nearest = np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(len(x)))
    return x[known[nearest]]
