"""The demo dataset: songs made by computer in the form of MUSDB18, to try everything without a download."""

import json
import math
from pathlib import Path
from typing import Any

import av
import numpy as np

from storage.errors import UserError
from storage.files import write_json, writing
from storage.lock import lock_path, locked
from vocsep.audio.opening import file_url
from vocsep.datasets.layouts import DEMO_MARKER
from vocsep.demo.band import play_bass, play_drums, play_other
from vocsep.demo.names import song_name
from vocsep.demo.signals import Signal, random_for, rms
from vocsep.demo.song import plan_song
from vocsep.demo.voice import sing
from vocsep.mapping import failures_of, pooled
from vocsep.progress import Progress

SAMPLE_RATE = 44100
FIRST_TEST_INDEX = 1 << 19
"""Index of the first test song: far enough from 0 that the training songs never reach it."""

STEMS = ("drums", "bass", "other", "vocals")
"""The four sources, in the order in which MUSDB18 stores them after the mixture."""

_PARTS = dict(zip(STEMS, (play_drums, play_bass, play_other, sing), strict=True))
_GENERATOR = 1  # goes up when the same settings give other songs
_STARTED = ".demo-started.json"
_AAC_FRAME = 1024


def synthesize_song(seed: int, index: int, seconds: float, sample_rate: int = SAMPLE_RATE) -> dict[str, Signal]:
    """Make one song, always the same one for the same arguments.

    Returns
    -------
    parts
        `mixture`, `drums`, `bass`, `other` and `vocals`, each `(2, samples)` float32, with
        `samples = round(seconds * sample_rate)`. The mixture is exactly `drums + bass + other + vocals`, added in that
        order in float32, and no sample of it or of a stem exceeds 0.9. Over the whole song the vocals are 1 to 5 dB
        weaker than the rest.

    Raises
    ------
    ValueError
        If `seed` or `index` is negative, `seconds` is below 1, or `sample_rate` below 8000 Hz.
    """
    song = plan_song(seed, index, seconds)
    if sample_rate < 8000:
        raise ValueError(f"sample_rate is {sample_rate}: it must be at least 8000 Hz")
    samples = round(seconds * sample_rate)
    part = {stem: play(song, samples, sample_rate, random_for(seed, index, stem)) for stem, play in _PARTS.items()}
    mix = random_for(seed, index, "mix")
    for stem, decibels in zip(STEMS, (0.0, -1.5, -1.0), strict=False):
        part[stem] *= 10 ** ((decibels + mix.uniform(-2, 2)) / 20) / rms(part[stem])
    backing = part["drums"] + part["bass"] + part["other"]
    part["vocals"] *= 10 ** (mix.uniform(-5, -1) / 20) * rms(backing) / rms(part["vocals"])
    # A short fade at both ends: a song is cut at its length, not at a bar.
    ramp = max(1, min(samples // 8, int(0.4 * sample_rate)))
    fade = np.ones(samples)
    fade[-ramp:] = np.linspace(1, 0, ramp)
    fade[: ramp // 40 + 1] *= np.linspace(0, 1, ramp // 40 + 1)
    backing += part["vocals"]
    peak = max(float(np.abs(x).max()) for x in (backing, *part.values()))
    gain = (fade * mix.uniform(0.6, 0.89) / peak).astype(np.float32)
    stems = {stem: np.asarray(x * gain, np.float32) for stem, x in part.items()}
    mixture = stems["drums"] + stems["bass"] + stems["other"] + stems["vocals"]
    return {"mixture": mixture, **stems}


def make_demo(
    root: Path,
    *,
    seed: int = 0,
    train_songs: int = 12,
    test_songs: int = 4,
    seconds: tuple[float, float] = (20.0, 30.0),
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write `root/train/*.stem.mp4` and `root/test/*.stem.mp4`, as in MUSDB18.

    Each file has five AAC stereo streams at 44.1 kHz: mixture, drums, bass, other, vocals. A song depends on `seed`,
    `seconds` and its place in its split, not on the number of songs or of workers.

    Existing songs are not made again, so a killed call resumes; `root/demo.json`, written last,
    marks a complete demo. A second call at the same time waits for the first.

    Parameters
    ----------
    root
        A folder that is new, empty, or holds a demo with these settings, finished or not.
    seed
        At least 0; another seed gives other songs.
    train_songs, test_songs
        Numbers of songs in the two splits, at least one in all.
    seconds
        Shortest and longest length of a song, from 1 to 600.
    workers
        Processes; by default one per CPU; 1: this process. With more than one, a script that calls this needs the
        usual `if __name__ == "__main__":`.
    progress
        Called with the songs that are made, of how many that were missing.

    Returns
    -------
    paths
        All songs of the demo, those for training first.

    Raises
    ------
    UserError
        If a setting is out of range, or `root` is a file, holds a demo with other settings, or holds anything else.
    """
    shortest, longest = (float(s) for s in seconds)
    if min(seed, train_songs, test_songs) < 0 or train_songs + test_songs < 1:
        raise UserError(
            f"demo: seed {seed}, train songs {train_songs}, test songs {test_songs}: "
            "none may be negative, and at least one song is needed"
        )
    if not 1 <= shortest <= longest <= 600:
        raise UserError(f"demo: seconds {shortest:g} to {longest:g}: need 1 <= shortest <= longest <= 600")
    if workers is not None and workers < 1:
        raise UserError(f"demo: workers is {workers}: it must be at least 1")
    settings = {
        "generator": _GENERATOR,
        "seed": seed,
        "train_songs": train_songs,
        "test_songs": test_songs,
        "seconds": [shortest, longest],
    }
    report = progress or (lambda done, total: None)
    _check_free(root, settings)
    root.mkdir(parents=True, exist_ok=True)
    with locked(lock_path(root), root, wait=True):
        _check_free(root, settings)
        songs = {
            root / split / f"{song_name(seed, first + i)}.stem.mp4": first + i
            for split, first, count in (("train", 0, train_songs), ("test", FIRST_TEST_INDEX, test_songs))
            for i in range(count)
        }
        missing = {path: index for path, index in songs.items() if not path.exists()}
        if missing or not (root / DEMO_MARKER).exists():
            write_json(root / _STARTED, settings)
            for split in ("train", "test"):
                (root / split).mkdir(exist_ok=True)
                for left in (root / split).glob(".*.stem.mp4.*"):  # by a killed run
                    left.unlink(missing_ok=True)
            outcomes = pooled(workers)(
                _make_song,
                list(missing),
                (missing, seed, (shortest, longest)),
                on_outcome=lambda _, done: report(done, len(missing)),
            )
            for name, reason in failures_of(outcomes).items():
                raise UserError(f"{root}: {name} cannot be made ({reason})")
            write_json(root / DEMO_MARKER, settings)
            (root / _STARTED).unlink(missing_ok=True)
    return list(songs)


def held_settings(root: Path) -> dict[str, Any]:
    """Settings of the demo at `root`, finished or not, as `make_demo` takes them; none where there is no such demo."""
    counts = ("seed", "train_songs", "test_songs")
    for name in (DEMO_MARKER, _STARTED):
        try:
            found = json.loads((root / name).read_text(encoding="utf-8"))
            if found["generator"] == _GENERATOR and all(type(found[count]) is int for count in counts):
                shortest, longest = map(float, found["seconds"])
                return {count: found[count] for count in counts} | {"seconds": (shortest, longest)}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def song_seconds(seed: int, index: int, seconds: tuple[float, float]) -> float:
    """Choose a song's length between two bounds in seconds: a whole number of AAC frames, else the lower bound.

    A decoded file of whole frames is exactly as long as the song; else its last frame is filled with silence.
    """
    low, high = (s * SAMPLE_RATE / _AAC_FRAME for s in seconds)
    if math.ceil(low) > math.floor(high):
        return seconds[0]
    frames = int(random_for(seed, index, "length").integers(math.ceil(low), math.floor(high) + 1))
    return frames * _AAC_FRAME / SAMPLE_RATE


def _make_song(path: Path, songs: dict[Path, int], seed: int, seconds: tuple[float, float]) -> None:
    """Write one of `songs`, whose index is given for each path."""
    index = songs[path]
    parts = synthesize_song(seed, index, song_seconds(seed, index, seconds))
    # An unfinished file's name does not end in .stem.mp4, so that no reader takes it for a song.
    with writing(path) as temporary:
        _encode(temporary, [parts[name] for name in ("mixture", *STEMS)])


def _encode(path: Path, streams: list[Signal]) -> None:
    """Write `(2, samples)` float32 signals as AAC streams of one mp4 file."""
    # bitexact leaves out versions and dates: the same songs make the same bytes. A movie clock of one tick
    # per sample lets the edit list, which hides the encoder's delay, tell the exact length.
    options = {"fflags": "+bitexact", "movie_timescale": str(SAMPLE_RATE)}
    # Without noise substitution, intensity stereo and noise shaping the streams keep their waveforms, so that
    # the decoded stems still add up to the decoded mixture (to about 30 dB).
    coder = {"aac_coder": "fast", "aac_pns": "0", "aac_is": "0", "aac_tns": "0", "flags": "+bitexact"}
    with av.open(file_url(path), "w", format="mp4", options=options) as container:
        outputs = []
        for _ in streams:
            output = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", options=coder)
            output.bit_rate = 256_000
            output.codec_context.format = av.AudioFormat("fltp")
            outputs.append(output)
        for start in range(0, streams[0].shape[1], _AAC_FRAME):
            for output, signal in zip(outputs, streams, strict=True):
                block = np.ascontiguousarray(signal[:, start : start + _AAC_FRAME])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate = SAMPLE_RATE
                frame.pts = start
                container.mux(output.encode(frame))
        for output in outputs:
            container.mux(output.encode(None))


def _check_free(root: Path, settings: dict[str, Any]) -> None:
    """Raise `UserError` unless `root` is new, empty, or a demo with these settings, finished or not."""
    if not root.exists():
        return
    if not root.is_dir():
        raise UserError(f"{root} is a file: give the demo its own folder")
    for name in (DEMO_MARKER, _STARTED):
        if (root / name).exists():
            try:
                found = json.loads((root / name).read_text(encoding="utf-8"))
            except ValueError:
                found = None
            if found != settings:
                raise UserError(
                    f"{root} holds a demo made with other settings ({root / name}): "
                    "give the same settings or another folder, or delete this one"
                )
            return
    # A run killed at its very start leaves at most a marker half written.
    if any(not entry.name.startswith(f".{_STARTED}") for entry in root.iterdir()):
        raise UserError(f"{root} is not empty and holds no demo: give the demo its own folder")
