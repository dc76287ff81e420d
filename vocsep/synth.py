"""Songs made by computer: a sung voice over drums, bass and chords, in many keys, tempi and colours.

The voice is a source-filter model: a glottal pulse with vibrato and portamento, and breath and consonant
noise, through vowels that move. Chords and bass have no formants, no vibrato and no gliding pitch, so that
they can be told from the voice by timbre, as in real music, although they lie in the same band.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

Signal = NDArray[np.float32]
Array = NDArray[np.float64]
Sound = Callable[[float, float], Signal]

STEMS = ("drums", "bass", "other", "vocals")
"""The four sources, in the order in which MUSDB18 stores them after the mixture."""

VOICES: dict[str, tuple[int, int, bool, float]] = {
    "bass": (41, 58, False, 0.96),
    "tenor": (48, 65, False, 1.04),
    "alto": (55, 72, True, 0.98),
    "soprano": (60, 77, True, 1.06),
}
"""Lowest and highest MIDI note, whether the woman's vowels are used, and the factor on their formants."""

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
# Consonants: (length in seconds, level of the noise beside the voice, its band in Hz, level of the voice).
_CONSONANTS: dict[str, tuple[float, float, tuple[int, int], float]] = {
    "s": (0.090, 0.50, (4500, 10000), 0.0),
    "sh": (0.090, 0.60, (2000, 6500), 0.0),
    "f": (0.070, 0.25, (1200, 9000), 0.05),
    "t": (0.030, 0.90, (2500, 9000), 0.0),
    "k": (0.035, 0.80, (1200, 4000), 0.0),
    "m": (0.070, 0.0, (500, 1000), 0.35),
    "l": (0.060, 0.0, (500, 1000), 0.55),
}

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
INSTRUMENTS = ("saws", "pluck", "epiano", "organ")
"""What the chords can be played on."""


@dataclass(frozen=True)
class Note:
    """One sung note: start and end in seconds, MIDI number, and whether it begins a phrase."""

    start: float
    end: float
    midi: int
    opens: bool


@dataclass(frozen=True)
class Song:
    """What a song plays: voice, tempo in beats a minute, chords (MIDI notes, one per bar) and sung notes."""

    voice: str
    tempo: float
    chords: tuple[tuple[int, ...], ...]
    notes: tuple[Note, ...]
    instrument: str

    @property
    def bar(self) -> float:
        """Length of a bar of four beats, in seconds."""
        return 240.0 / self.tempo


def render(song: Song, stem: str, samples: int, sample_rate: int, rng: np.random.Generator) -> Signal:
    """Play one stem (a name in `STEMS`): `(2, samples)` float32 at `sample_rate` Hz, at any level."""
    part = {"drums": _drums, "bass": _bass, "other": _other, "vocals": _vocals}[stem]
    return part(song, samples, sample_rate, rng)


# --- the voice ------------------------------------------------------------------------------------------


def _vocals(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Sing the notes: `(2, samples)`, near the middle, with some reverberation."""
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
        voice += up(_smooth(gains, at(0.005 if sharp else 0.02))) * _band(white, low, high, rate)
    dry = _band(voice, 60, 16000, rate)
    side = 10 ** (rng.uniform(-1.5, 1.5) / 20)
    wet = _reverb(dry, rate, rng, seconds=rng.uniform(0.5, 1.1), level=rng.uniform(0.12, 0.28))
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
    centre = (np.arange(len(frames)) * hop - window // 2 + hop) / step
    moving = [np.interp(centre, np.arange(len(f)), f) for f in formants]
    tone = 440 * 2 ** ((np.interp(centre, np.arange(len(pitch)), pitch) - 69) / 12)
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


# --- the band -------------------------------------------------------------------------------------------


def _drums(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Kick, snare, hi-hat, toms and crash: `(2, samples)`."""
    tune = rng.uniform(0.85, 1.2)

    def struck(seconds: float, start: float, end: float, bend: float, decay: float, noise: float) -> Signal:
        # A sine that falls from `start` to `end` Hz, plus a burst of noise.
        t = np.arange(int(seconds * rate)) / rate
        hertz = end + (start - end) * np.exp(-t / bend)
        body = np.sin(2 * np.pi * tune * np.cumsum(hertz) / rate) * np.exp(-t / decay)
        hit = _band(rng.standard_normal(len(t)), 300, 9000, rate) * np.exp(-t / (decay * 0.7)) * noise
        return _faded(body * (1 - min(noise, 0.6)) + hit, rate)

    def metal(seconds: float, decay: float, low: float) -> Signal:
        t = np.arange(int(seconds * rate)) / rate
        return _faded(_band(rng.standard_normal(len(t)), low, 17000, rate) * np.exp(-t / decay), rate)

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
    return out + _reverb(out.mean(axis=0), rate, rng, seconds=0.4, level=0.08)


def _bass(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """A bass line that follows the chords: `(2, samples)`, in the middle."""
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


def _other(song: Song, samples: int, rate: int, rng: np.random.Generator) -> Signal:
    """Chords, a quiet second instrument, and a plucked tune where nobody sings: `(2, samples)`, wide."""
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
    return out + _reverb(out.mean(axis=0), rate, rng, seconds=0.9, level=0.12)


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
    midi: float,
    length: float,
    rate: int,
    levels: Array,
    decay: float,
    damping: float,
    attack: float = 0.004,
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


# --- small tools ----------------------------------------------------------------------------------------


def rms(x: NDArray[np.floating]) -> float:
    """Root mean square over all samples, never quite 0."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) + 1e-9


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


def _band(x: Array, low: float, high: float, rate: int) -> Array:
    high = min(high, 0.45 * rate)
    sos = scipy.signal.butter(2, [min(low, 0.5 * high), high], "bandpass", fs=rate, output="sos")
    return np.asarray(scipy.signal.sosfilt(sos, x))


def _reverb(x: NDArray[np.floating], rate: int, rng: np.random.Generator, seconds: float, level: float) -> Signal:
    """The reverberation alone, `(2, samples)`: noise that dies by 60 dB in `seconds`, other on each side."""
    t = np.arange(int(seconds * rate)) / rate
    room = rng.standard_normal((2, len(t))) * np.exp(-6.9 * t / seconds)
    room = _band(room, 200, 6000, rate)
    room *= level / np.sqrt(np.sum(room**2, axis=1, keepdims=True))
    wet = scipy.signal.oaconvolve(x[None].astype(np.float32), room.astype(np.float32), axes=1)
    return np.asarray(wet[:, : len(x)], np.float32)


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
