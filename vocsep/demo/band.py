"""The band of the songs made by computer: drums, bass, and chords on several instruments.

Each part is a function of a song, its length in samples, the sample rate in Hz and a generator that chooses what the
song leaves open (the same state gives the same samples). It returns `(2, samples)` float32, at any level. Chords and
bass have no formants, no vibrato and no gliding pitch, so that they can be told from the voice by timbre, as in real
music, although they are in the same band.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vocsep.demo.signals import Array, Signal, band_pass, reverb
from vocsep.demo.song import INSTRUMENTS, Song

Sound = Callable[[float, float], Signal]

# Sixteenths of one bar: kick, snare, hi-hat (o: open).
_BEATS = (
    ("x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
    ("x..x....x..x....", "....x.......x..x", "x.x.x.x.x.x.x.o."),
    ("x...x...x...x...", "....x.......x...", "..o...o...o...o."),
    ("x.....x...x.....", "....x..x....x...", "xxxxxxxxxxxxxxxx"),
    ("x.........x.....", "........x.......", "x...x...x...x..."),
    ("x..x..x...x...x.", "....x.......x...", "x.xxx.xxx.xxx.xo"),
)
# Bass: (sixteenth, length in sixteenths, semitones above the root).
_BASS_LINES = (
    ((0, 8, 0), (8, 6, 0), (14, 2, 7)),
    tuple((2 * i, 2, 0) for i in range(8)),
    ((0, 3, 0), (3, 3, 0), (6, 4, 7), (10, 3, 0), (13, 3, 12)),
    ((0, 4, 0), (4, 4, 7), (8, 4, 12), (12, 4, 7)),
    ((0, 14, 0),),
    ((0, 2, 0), (2, 2, 12), (6, 2, 0), (8, 2, 0), (10, 2, 12), (14, 2, 7)),
)
# Chords: the sixteenths at which the chord is struck; none: arpeggio.
_COMPS = ((0,), (0, 8), (0, 4, 8, 12), (0, 6, 12), (2, 6, 10, 14), (0, 3, 8, 11), (), ())


def play_drums(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Play kick, snare, hi-hat, toms and crash."""
    tune = rng.uniform(0.85, 1.2)

    def struck(seconds: float, start: float, end: float, bend: float, decay: float, noise: float) -> Signal:
        # A sine that falls from `start` to `end` Hz, plus a burst of noise.
        t = np.arange(int(seconds * rate)) / rate
        hertz = end + (start - end) * np.exp(-t / bend)
        body = np.sin(2 * np.pi * tune * np.cumsum(hertz) / rate) * np.exp(-t / decay)
        hit = band_pass(rng.standard_normal(len(t)), 300, 9000, rate) * np.exp(-t / (decay * 0.7)) * noise
        return _faded(body * (1 - min(noise, 0.6)) + hit, rate)

    def metal(seconds: float, decay: float, low: float) -> Signal:
        t = np.arange(int(seconds * rate)) / rate
        return _faded(band_pass(rng.standard_normal(len(t)), low, 17000, rate) * np.exp(-t / decay), rate)

    kit = {
        "kick": (struck(0.4, 160, 48, 0.03, 0.11, 0.03), 0.0, 1.0),
        "snare": (struck(0.3, 260, 185, 0.02, rng.uniform(0.05, 0.1), 0.75), 0.05, 0.8),
        "hat": (metal(0.1, rng.uniform(0.015, 0.035), 6500), 0.35, 0.35),
        "open": (metal(0.4, 0.13, 6000), 0.35, 0.3),
        "crash": (metal(1.6, 0.4, 3500), -0.4, 0.3),
        "high": (struck(0.35, 240, 150, 0.05, 0.12, 0.08), -0.3, 0.8),
        "low": (struck(0.45, 160, 95, 0.05, 0.15, 0.08), 0.4, 0.8),
    }
    out = np.zeros((2, samples), np.float32)
    sixteenth = song.bar / 16

    def hit(name: str, bar: int, step: int, loud: float) -> None:
        sound, pan, gain = kit[name]
        time = (bar * 16 + step) * sixteenth + rng.uniform(0, 0.004)
        _add(out, sound, time, rate, pan, gain * loud * rng.uniform(0.85, 1.0))

    beats = [_BEATS[i] for i in rng.permutation(len(_BEATS))[:2]]
    for bar in range(len(song.chords)):
        kick, snare, hat = beats[bar // 8 % 2]
        fill = bar % 4 == 3 and rng.random() < 0.75
        if bar % 8 == 0:
            hit("crash", bar, 0, 1.0)
        for step in range(16):
            if kick[step] != ".":
                hit("kick", bar, step, 1.0)
            if hat[step] != "." and not (fill and step >= 12):
                hit("open" if hat[step] == "o" else "hat", bar, step, 1.0 if step % 4 == 0 else 0.65)
            if fill and step >= 12:
                hit(("snare", "high", "high", "low")[rng.integers(4)], bar, step, 0.5 + 0.1 * (step - 11))
            elif snare[step] != ".":
                hit("snare", bar, step, 1.0 if step % 4 == 0 else 0.4)
    return out + reverb(out.mean(axis=0), rate, rng, seconds=0.4, level=0.08)


def play_bass(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Play a bass line that follows the chords, in the middle."""
    kind = rng.integers(3)
    k = np.arange(1.0, 25.0)
    # Plucked string, round sub, or a saw behind a low-pass.
    strings: tuple[Array, ...] = (
        1 / k**1.3 * np.abs(np.sin(np.pi * k * 0.18)),
        0.12 ** (k - 1),
        1 / k / (1 + (k / 6) ** 2),
    )
    levels = strings[kind]
    decay = (0.6, 1.5, 2.5)[kind]

    @cache
    def note(midi: int, length: float) -> Signal:
        return _partials(midi, length, rate, levels, decay, damping=0.15 if kind == 0 else 0.02)

    out = np.zeros((2, samples), np.float32)
    lines = [_BASS_LINES[i] for i in rng.permutation(len(_BASS_LINES))[:2]]
    for bar, chord in enumerate(song.chords):
        root = 28 + (chord[0] - 28) % 12
        for step, length, above in lines[bar // 8 % 2]:
            sound = note(root + above, round(length * song.bar / 16 * 0.95, 4))
            _add(out, sound, (bar + step / 16) * song.bar, rate, 0.0, rng.uniform(0.85, 1))
    return out


def play_other(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Play chords, a quiet second instrument, and a plucked tune where nobody sings, wide."""
    out = np.zeros((2, samples), np.float32)
    second = INSTRUMENTS[rng.integers(4)]
    for instrument, gain, octave in ((song.instrument, 1.0, 0), (second, 0.4, 12)):
        sound = _instrument(instrument, rate, rng)
        comps = [_COMPS[i] for i in rng.permutation(len(_COMPS))[:2]]
        lowest = int(rng.integers(50, 56)) + octave
        for bar, chord in enumerate(song.chords):
            tones = sorted(lowest + (tone - lowest) % 12 for tone in chord)
            struck = comps[bar // 8 % 2]
            if struck:
                ends = (*struck[1:], 16)
                events = [(a, b - a, tone) for a, b in zip(struck, ends, strict=True) for tone in tones]
            else:
                run = [*tones, tones[0] + 12, *tones[:0:-1]]
                events = [(2 * i, 3, run[i % len(run)]) for i in range(8)]
            for i, (step, length, tone) in enumerate(events):
                tap = sound(tone, round(length * song.bar / 16, 4))
                pan = 0.75 * (-1 if (tone + i) % 2 else 1) * rng.uniform(0.4, 1)
                _add(out, tap, (bar + step / 16) * song.bar, rate, pan, gain * rng.uniform(0.8, 1))
    # The tune in the rests keeps a network from taking every melody for a voice.
    lead = _instrument("pluck", rate, rng)
    beat = song.bar / 4
    for i in range(4 * len(song.chords) * 2):
        time = i * beat / 2
        sung = any(n.start - beat < time < n.end + beat / 2 for n in song.notes)
        if not sung and rng.random() < 0.7:
            chord = song.chords[min(int(time / song.bar), len(song.chords) - 1)]
            tone = 66 + (chord[rng.integers(len(chord))] - 66) % 12
            _add(out, lead(tone, round(beat, 4)), time, rate, 0.2, 0.8)
    return out + reverb(out.mean(axis=0), rate, rng, seconds=0.9, level=0.12)


def _instrument(name: str, rate: int, rng: np.random.Generator) -> Sound:
    """Return a function of MIDI note and length in seconds that gives one note's sound, always the same."""
    k = np.arange(1, 41)
    detune = rng.uniform(0.04, 0.12) * np.array([-1.0, -0.3, 0.45, 1.0])
    bright, pick, index = rng.uniform(4, 10), rng.uniform(0.12, 0.3), rng.uniform(0.8, 2.2)
    drawbars = np.zeros(16)
    drawbars[[0, 1, 2, 3, 5, 7]] = rng.uniform(0.15, 1, 6)

    @cache
    def sound(midi: float, length: float) -> Signal:
        if name == "saws":
            levels = 1 / k / (1 + (k / bright) ** 2)
            four = [_partials(midi + d, length, rate, levels, 20.0, 0.0, 0.04) for d in detune]
            return np.asarray(0.5 * sum(four), np.float32)
        if name == "organ":
            return _partials(midi, length, rate, drawbars / drawbars.sum() * 1.5, 50.0, 0.0, 0.01)
        if name == "pluck":
            # A string plucked at `pick` of its length has harmonics sin(pi k pick) / k^2; brighter here.
            return _partials(midi, length + 0.3, rate, np.sin(np.pi * k * pick) / k**1.2, 0.5, 0.2)
        # Electric piano by FM: Chowning, "The synthesis of complex audio spectra by means of frequency
        # modulation", J. Audio Eng. Soc. 21 (1973); a tine, the seventh harmonic, rings shortly.
        t = np.arange(int((length + 0.1) * rate)) / rate
        hertz = 440 * 2 ** ((midi - 69) / 12)
        turn = 2 * np.pi * hertz * t
        body = np.sin(turn + index * np.exp(-t / 0.5) * np.sin(turn))
        tine = 0.12 * np.exp(-t / 0.08) * np.sin(min(7, 0.4 * rate / hertz) * turn)
        return _faded((body + tine) * np.exp(-t / 0.9), rate, 0.05)

    return sound


def _partials(
    midi: float, length: float, rate: int, levels: Array, decay: float, damping: float, attack: float = 0.004
) -> Signal:
    """One note as a sum of harmonics; harmonic k dies in `decay / (1 + damping * (k - 1))` seconds."""
    hertz = 440 * 2 ** ((midi - 69) / 12)
    count = max(1, min(len(levels), int(0.45 * rate / hertz)))
    t = np.arange(max(1, int(length * rate))) / rate
    # exp((i w - d) t) by repeated multiplication, which is many times faster than a sine for each harmonic.
    turn, fall = np.exp(2j * np.pi * hertz * t), np.exp(-t * damping / decay)
    power = (turn * np.exp(-t / decay)).astype(np.complex64)
    turn = (turn * fall).astype(np.complex64)
    out = np.zeros(len(t), np.float32)
    for level in levels[:count]:
        out += np.float32(level) * power.imag
        power *= turn
    return _faded(out, rate, 0.03, attack)


def _add(out: Signal, sound: Signal, seconds: float, rate: int, pan: float, gain: float) -> None:
    """Add a mono sound at a time; `pan` from -1 (left) to 1 (right), at constant power."""
    start = int(seconds * rate)
    cut = sound[: max(0, out.shape[1] - start)]
    for channel, side in ((0, math.cos), (1, math.sin)):
        out[channel, start : start + len(cut)] += np.float32(gain * side((pan + 1) * math.pi / 4)) * cut


def _faded(x: NDArray[np.floating], rate: int, release: float = 0.01, attack: float = 0.001) -> Signal:
    up, down = min(len(x), int(attack * rate) + 1), min(len(x), int(release * rate) + 1)
    x[:up] *= np.linspace(0, 1, up)
    x[-down:] *= np.linspace(1, 0, down)
    return x.astype(np.float32)
