"""Separates damaged and hostile files: run as a program, so that a crash or hang of a library ends only this process.

`python -m tests.vocsep.separation.fuzz_separation FOLDER COUNT [FIRST]`: damages the songs in FOLDER/songs in turn,
COUNT times, and after every fifth makes a playlist, a name that is an address, tags without end or a cut file of some
kind. Each is told on standard output before it is tried, and what was wrong after it. The last line counts outcomes.
"""

import contextlib
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.errors import UserError
from tests.vocsep.audio.hostile_files import addresses, playlists, with_tags
from tests.vocsep.models.small_models import lively_separator
from vocsep.audio.formats import AudioFormat
from vocsep.audio.reading import audio_info, decode, decode_blocks
from vocsep.separation.files import separate_file
from vocsep.separation.settings import SeparationSettings

TAGGED = ("mp3", "flac", "m4a", "mkv", "wav", "aiff", "ape.mp3")
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


@dataclass(frozen=True)
class Try:
    """A file to separate, and what must become of it; None: either is right."""

    name: str
    path: Path
    expected: str | None = None
    accept_damaged: bool = False


def hostile(folder: Path, songs: dict[str, bytes], seed: int, random: np.random.Generator) -> Try:
    """A file of strangers: each kind of attack in turn, on any song."""
    kind = str(random.choice(sorted(songs)))
    content = songs[kind]
    match seed % 5:
        case 0:
            other = folder / "songs" / f"song.{kind}"
            suffix, text = list(playlists(other).items())[int(random.integers(len(playlists(other))))]
            named = folder / "damaged" / f"{seed}.{random.choice([suffix, 'mp3', 'wav', 'flac', 'm4a'])}"
            named.write_text(text, encoding="latin-1")
            return Try(f"playlist {suffix}", named, "refused")
        case 1:
            name = str(random.choice(addresses(9)))
            # As typed by somebody who is in that folder.
            named = Path(f"{name} {seed}.{kind}")
            named.write_bytes(content)
            return Try(f"address {name}", named, "separated")
        case 2:
            bomb = str(random.choice(TAGGED))
            count = int(random.choice([1, 500, 5000, 20_000]))
            named = folder / "damaged" / f"{seed}.{bomb}"
            named.write_bytes(with_tags(bomb, songs[bomb.rpartition(".")[2]], count, random.bytes(3)))
            return Try(f"tags {bomb} {count}", named, "refused" if count > 2000 else None)
        case _:
            named = folder / "damaged" / f"{seed}.{kind}"
            share = float(random.uniform(0.02, 0.97))
            named.write_bytes(content[: int(share * len(content))])
            accepted = seed % 5 == 4
            return Try(
                f"{'accepted ' * accepted}cut {kind} {share:.3f}",
                named,
                None if accepted else "refused",
                accepted,
            )


def problem(song: Path, output: Path, settings: SeparationSettings) -> tuple[str, str | None]:
    """Outcome of one song, and what is wrong with it."""
    try:
        result = separate_file(song, output, SEPARATOR, settings)
    except UserError as error:
        left = [path for path in output.rglob("*") if path.is_file()] if output.exists() else []
        if left:
            return "refused", f"left {left}"
        if "\n" in str(error) or str(song) not in str(error):
            return "refused", f"not one line with the file's name: {error}"
        return "refused", None
    blocks = list(decode_blocks(song, accept_damaged=settings.accept_damaged))
    expected, sample_rate = np.concatenate([block.waveforms[0] for block in blocks], axis=1), blocks[0].sample_rate
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
    """Try `count` damages from the seed `first` on, and a fifth as many hostile files."""
    songs = sorted((folder / "songs").iterdir())
    contents = [song.read_bytes() for song in songs]
    by_kind = {song.suffix[1:]: content for song, content in zip(songs, contents, strict=True)}
    outcomes: Counter[str] = Counter()
    (folder / "damaged").mkdir(exist_ok=True)
    os.chdir(folder / "damaged")
    for seed in range(first, first + count):
        random = np.random.default_rng(seed)
        original = songs[seed % len(songs)]
        path = folder / "damaged" / f"{seed}{original.suffix}"
        path.write_bytes(damaged(contents[seed % len(songs)], contents[int(random.integers(len(songs)))], random))
        tries = [Try(original.name, path)]
        if seed % 5 == 0:
            tries.append(hostile(folder, by_kind, seed // 5, random))
        for each in tries:
            output = folder / "out" / str(seed)
            print(f"seed {seed} {each.name}", flush=True)
            container = FORMATS[seed // len(songs) % len(FORMATS)]
            settings = SeparationSettings(format=container, accept_damaged=each.accept_damaged)
            try:
                outcome, wrong = problem(each.path, output, settings)
            except Exception as error:  # any is what this program looks for
                outcome, wrong = "failed", f"{type(error).__name__}: {error}"
            if each.expected not in (None, outcome):
                wrong = wrong or f"was {outcome}"
            outcomes[f"{each.name.split()[0].removeprefix('song.')} {outcome}"] += 1
            if wrong:
                print(f"WRONG seed {seed} {each.name}: {wrong}", flush=True)
                continue
            each.path.unlink()
            with contextlib.suppress(OSError):
                for stem in output.rglob("*.*"):
                    stem.unlink()
    print(json.dumps(outcomes))


SEPARATOR = lively_separator(channels=1, preset="notebook")

if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
