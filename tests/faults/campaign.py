"""Kills, full disks and flipped bits, many of each, with counts: `python -m tests.faults.campaign`.

No part of the tests: it takes some minutes, and its random faults are others with every `--seed`. Of every fault it
says whether what was finished before survived it, whole and readable, and of a flipped bit whether it was noticed or
changed nothing; `lost` must be 0 everywhere. Full disks need the right to mount (root).
"""

import argparse
import collections
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from storage.checkpoints import CheckpointFolder
from storage.errors import UserError
from storage.integrity import problems
from storage.lock import store_lock
from storage.manifest import SPECTROGRAMS, Manifest
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.disk import fill, small_disk
from tests.helpers import tree
from tests.tracks import new_store, write_track
from vocsep.demo.dataset import make_demo

Counts = dict[str, collections.Counter[str]]
WEIGHTS = {"w": np.arange(3000, dtype=np.float32)}
DISK = 4 << 20
LONGEST_WAIT = 0.08

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
COMMAND = [sys.executable, "-m", "vocsep"]
SMALL = [
    "--steps",
    "6",
    "--batch-size",
    "2",
    "--width",
    "2",
    "--network",
    "unet",
    "--device",
    "cpu",
    "--validations",
    "1",
]


def add_track(store: SpectrogramStore, number: int) -> None:
    """A track of three small spectrograms, named in the saved manifest."""
    values = {name: np.full((1, 200, 16), number % 100, np.float16) for name in SPECTROGRAMS}
    store.add(write_track(store.path, f"t-{number}", name=f"Track {number}", arrays=values))
    store.save()


class Stores:
    """Tracks in a store."""

    name = "stores"
    room = 300_000

    def prepare(self, folder: Path) -> None:
        """A store of two tracks."""
        store = new_store(folder / "s.zarr")
        for number in range(2):
            add_track(store, number)

    def work(self, folder: Path, tell: Callable[[int], object]) -> None:
        """Add tracks, replace the first, and tell each one that is named."""
        with store_lock(folder / "s.zarr"):
            store = new_store(folder / "s.zarr")
            store.discard_unfinished()
            for number in (*range(len(store.manifest.tracks), 400), 0):
                add_track(store, number)
                tell(number)

    def holds(self, folder: Path, told: set[int]) -> bool:
        """Whether all that was reported exists, intact."""
        path = folder / "s.zarr"
        tracks = SpectrogramStore.open(path).manifest.tracks
        with store_lock(path):
            new_store(path).discard_unfinished()
        return tracks.keys() >= {f"t-{number}" for number in (0, 1, *told)} and problems(path) == []

    def detects(self, folder: Path) -> bool:
        """Whether a flipped bit is named."""
        try:
            return problems(folder / "s.zarr") != []
        except UserError:
            return True


class Models:
    """Versions in a registry, and the champion."""

    name = "models"
    room = 300_000

    def prepare(self, folder: Path) -> None:
        """Three versions, of which the second is the champion."""
        registry = ModelRegistry(folder / "models")
        for number in range(1, 4):
            registry.add(WEIGHTS, {"number": number})
            registry.promote(min(number, 2), "better")

    def work(self, folder: Path, tell: Callable[[int], object]) -> None:
        """Add versions, promote them, and prune now and then."""
        registry = ModelRegistry(folder / "models")
        for _ in range(400):
            version = registry.add(WEIGHTS, {}).version
            assert version is not None
            registry.promote(version, "better")
            tell(version)
            if version % 7 == 0:
                registry.prune(5)

    def holds(self, folder: Path, told: set[int]) -> bool:
        """Whether the champion is the last that was told, or a later one, and all versions are whole."""
        registry = ModelRegistry(folder / "models")
        for version in registry.versions():
            registry.open(str(version)).verify()
        registry.promote(max(registry.versions()))
        return (registry.champion() or 0) >= max({2, *told})

    def detects(self, folder: Path) -> bool:
        """Whether a flipped bit is refused, or changes nothing that is read."""
        registry = ModelRegistry(folder / "models")
        try:
            found = [registry.open(str(version)) for version in registry.versions()]
            weights = [model.load_weights()["w"].tobytes() for model in found]
            numbers = [model.description["number"] for model in found]
            reigns = [reign.version for reign in registry.history()]
        except (UserError, KeyError):
            return True
        return (weights, numbers, reigns) == ([WEIGHTS["w"].tobytes()] * 3, [1, 2, 3], [1, 2])


class Checkpoints:
    """Checkpoints of a run."""

    name = "checkpoints"
    room = 30_000

    def prepare(self, folder: Path) -> None:
        """Two checkpoints."""
        for step in (1, 2):
            CheckpointFolder(folder / "run").save(step, WEIGHTS, {"step": step})

    def work(self, folder: Path, tell: Callable[[int], object]) -> None:
        """Save one checkpoint after the other."""
        held = CheckpointFolder(folder / "run")
        for step in range(held.steps()[-1] + 1, 2000):
            held.save(step, WEIGHTS, {"step": step})
            tell(step)

    def holds(self, folder: Path, told: set[int]) -> bool:
        """Whether the newest that was told, or a later one, is read back."""
        checkpoint, _ = CheckpointFolder(folder / "run").newest()
        return checkpoint is not None and checkpoint.step >= max({2, *told})

    def detects(self, folder: Path) -> bool:
        """Whether the newest is read back as it was, or an earlier one is."""
        checkpoint, _ = CheckpointFolder(folder / "run").newest()
        if checkpoint is None or checkpoint.arrays["w"].tobytes() != WEIGHTS["w"].tobytes():
            return False
        return checkpoint.state == {"step": checkpoint.step}


Subject = Stores | Models | Checkpoints


def killed(subject: Subject, folder: Path, draw: random.Random) -> set[int]:
    """Have a process work for a moment and kill it; what it told before."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        subject.work(folder, lambda number: os.write(sender, number.to_bytes(4, "little")))
        os._exit(0)
    os.close(sender)
    time.sleep(draw.uniform(0, LONGEST_WAIT))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(receiver, "rb") as pipe:
        content = pipe.read()
    return {int.from_bytes(content[at : at + 4], "little") for at in range(0, len(content) - 3, 4)}


def survives(check: Callable[[], bool]) -> str:
    """`survived`, or `lost` where something is not as it should be or cannot be read."""
    try:
        return "survived" if check() else "lost"
    except Exception as error:  # any error is what the campaign looks for
        print(f"lost: {type(error).__name__}: {error}", file=sys.stderr)
        return "lost"


def kills(subject: Subject, number: int, draw: random.Random) -> Iterator[str]:
    """Kill the working process, again and again in the same folder."""
    with tempfile.TemporaryDirectory() as folder:
        subject.prepare(Path(folder))
        told: set[int] = set()
        for _ in range(number):
            told = {*sorted(told)[-1:], *killed(subject, Path(folder), draw)}
            yield survives(functools.partial(subject.holds, Path(folder), told))


def full_disks(subject: Subject, number: int, draw: random.Random) -> Iterator[str]:
    """Work until a small disk is full, look, make room, and look again."""
    for _ in range(number):
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", DISK) as disk:
            subject.prepare(disk)
            (disk / "room").write_bytes(bytes(draw.randrange(1, subject.room)))
            fill(disk / "filler")
            (disk / "room").unlink()
            told: set[int] = set()
            try:
                subject.work(disk, told.add)
            except (OSError, UserError):
                (disk / "filler").unlink()
                yield survives(functools.partial(subject.holds, disk, told))


def flips(subject: Subject, number: int, draw: random.Random) -> Iterator[str]:
    """Flip one bit anywhere, look whether it is noticed, and flip it back."""
    with tempfile.TemporaryDirectory() as folder:
        subject.prepare(Path(folder))
        files = [Path(folder) / name for name, content in tree(Path(folder)).items() if content]
        for _ in range(number):
            file = draw.choice(files)
            content = bytearray(file.read_bytes())
            bit = draw.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)
            yield survives(lambda: subject.detects(Path(folder)))
            content[bit // 8] ^= 1 << bit % 8
            file.write_bytes(content)


def commands(number: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Kill the commands themselves at a random moment, then let them end; what each is, and how it went."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        make_demo(here / "songs", train_songs=3, test_songs=1, seconds=(3.0, 3.5), workers=1)
        store, models = ["--store", "s.zarr"], ["--models", "models", "--runs", "runs"]
        lines = {
            "preprocess": ["--dataset", "songs", *store, "--workers", "1"],
            "train": [*SMALL, *store, *models],
            "retrain": [*SMALL, *store, *models, "--dataset", "songs", "--jobs", "jobs", "--reports", "reports"],
        }
        for name, options in lines.items():
            for attempt in range(number):
                process = subprocess.Popen(
                    [*COMMAND, name, *options, *(["--seed", str(attempt)] if name != "preprocess" else [])],
                    cwd=here,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=ENVIRONMENT,
                )
                time.sleep(draw.uniform(1, 12))
                process.kill()
                process.wait()
                yield name, survives(lambda: _is_sound(here))
            if name == "preprocess":
                subprocess.run([*COMMAND, name, *options], cwd=here, env=ENVIRONMENT, check=True, capture_output=True)


def _is_sound(folder: Path) -> bool:
    store, registry = folder / "s.zarr", ModelRegistry(folder / "models")
    if store.exists():
        Manifest.load(store)
        SpectrogramStore.open(store)
        if [problem for problem in problems(store) if "killed writer" not in problem.what]:
            return False
    for version in registry.versions():
        registry.open(str(version)).verify()
    champion = registry.champion()
    return champion is None or champion in registry.versions()


def _row(title: str, found: "collections.Counter[str]") -> str:
    return f"| {title} | {found.total()} | {found['survived']} | {found['lost']} |"


def main() -> None:
    """Run the campaign and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kills", type=int, default=100, help="for each of stores, models and checkpoints")
    options.add_argument("--disks", type=int, default=40, help="likewise")
    options.add_argument("--flips", type=int, default=300, help="likewise")
    options.add_argument("--commands", type=int, default=5, help="for each of preprocess, train and retrain")
    chosen = options.parse_args()
    draw = random.Random(chosen.seed)
    counts: Counts = collections.defaultdict(collections.Counter)
    started = time.monotonic()
    print("| fault | tried | survived | lost |\n|---|---|---|---|", flush=True)
    for subject in (Stores(), Models(), Checkpoints()):
        for kind, faults, number in (
            ("kill", kills, chosen.kills),
            ("full disk", full_disks, chosen.disks),
            ("flipped bit", flips, chosen.flips),
        ):
            title = f"{kind}, {subject.name}"
            counts[title].update(faults(subject, number, draw))
            print(_row(title, counts[title]), flush=True)
    commanded: Counts = collections.defaultdict(collections.Counter)
    for name, outcome in commands(chosen.commands, draw):
        commanded[f"kill, vocsep {name}"][outcome] += 1
    for title, found in commanded.items():
        print(_row(title, found))
    everything = sum((*counts.values(), *commanded.values()), collections.Counter())
    print(_row("all", everything))
    print(f"seed {chosen.seed}, {(time.monotonic() - started) / 60:.1f} minutes")
    sys.exit(1 if everything["lost"] else 0)


if __name__ == "__main__":
    main()
