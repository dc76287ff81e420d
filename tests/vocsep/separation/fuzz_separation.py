"""Separates damaged copies of songs: run as a program, so that a crash or a hang of a library ends only this process.

`python -m tests.vocsep.fuzz_separation FOLDER COUNT [FIRST]`: damages the songs in FOLDER/songs in turn, COUNT times,
tells each damage on standard output before it is tried, and what was wrong after it. The last line counts the outcomes.
"""

import contextlib
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from storage.errors import UserError
from tests.vocsep.models.small_models import lively_separator
from vocsep.audio.formats import AudioFormat
from vocsep.audio.reading import audio_info, decode
from vocsep.separation.files import separate_file
from vocsep.separation.settings import SeparationSettings

FORMATS: tuple[AudioFormat, ...] = ("wav", "flac", "ogg")


def damaged(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """A copy of a file with one to three faults, every other time within its first bytes."""
    copy = bytearray(content)
    for _ in range(random.integers(1, 4)):
        span = min(len(copy), 200) if random.random() < 0.5 else len(copy)
        place, length = int(random.integers(0, max(1, span))), int(random.integers(1, 64))
        match random.integers(0, 7):
            case 0:
                for each in random.integers(0, max(1, span), length):
                    if each < len(copy):
                        copy[each] ^= 1 << int(random.integers(0, 8))
            case 1:
                del copy[max(1, place) :]
            case 2:
                copy[place:place] = random.bytes(length)
            case 3:
                del copy[place : place + length]
            case 4:
                copy[place : place + length] = bytes(length)
            case 5:
                copy[place : place + length] = b"\xff" * length
            case _:
                copy[:length] = other[:length]
    return bytes(copy)


def problem(song: Path, output: Path, settings: SeparationSettings) -> tuple[str, str | None]:
    """Outcome of one song, and what is wrong with it."""
    try:
        result = separate_file(song, output, SEPARATOR, settings)
    except UserError as error:
        left = [path for path in output.rglob("*") if path.is_file()] if output.exists() else []
        if left:
            return "refused", f"left {left}"
        if "\n" in str(error) or str(song.parent) not in str(error):
            return "refused", f"not one line with the file's name: {error}"
        return "refused", None
    expected, sample_rate = decode(song)
    if {path for path in output.rglob("*") if path.is_file()} != set(result.outputs.values()):
        return "separated", "files that are no stems"
    if (result.sample_rate, result.channels) != (sample_rate, len(expected)):
        return "separated", "other rate or channels than its result says"
    for path in result.outputs.values():
        stem, rate = decode(path)
        if (stem.shape, rate) != (expected.shape, sample_rate):
            return "separated", f"{path.name} has {stem.shape} at {rate} Hz, not {expected.shape} at {sample_rate} Hz"
        if audio_info(path).channels != len(expected):
            return "separated", f"{path.name} says another number of channels than it has"
    return "separated", None


def main(folder: Path, count: int, first: int = 0) -> None:
    """Try `count` damages from the seed `first` on."""
    songs = sorted((folder / "songs").iterdir())
    contents = [song.read_bytes() for song in songs]
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + count):
        random = np.random.default_rng(seed)
        original = songs[seed % len(songs)]
        path = folder / "damaged" / f"{seed}{original.suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged(contents[seed % len(songs)], contents[int(random.integers(len(songs)))], random))
        output = folder / "out" / str(seed)
        print(f"seed {seed} {original.name}", flush=True)
        settings = SeparationSettings(format=FORMATS[seed // len(songs) % len(FORMATS)])
        try:
            outcome, wrong = problem(path, output, settings)
        except Exception as error:  # any is what this program looks for
            outcome, wrong = "failed", f"{type(error).__name__}: {error}"
        outcomes[f"{original.suffix[1:]} {outcome}"] += 1
        if wrong:
            print(f"WRONG seed {seed} {original.name}: {wrong}", flush=True)
            continue
        path.unlink()
        with contextlib.suppress(OSError):
            for stem in output.rglob("*.*"):
                stem.unlink()
    print(json.dumps(outcomes))


SEPARATOR = lively_separator(channels=1, preset="notebook")

if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
