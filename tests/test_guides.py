"""The commands of the README and the guides run as they are written there, one after the other."""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.forked import run_forked
from tests.storage.remote.buckets import s3_server, use
from tests.test_documents import ROOT, command_lines
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.models.registry import open_registry

GUIDES = [ROOT / "README.md", ROOT / "docs/index.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
# Servers, which tests of their folders start and stop.
ELSEWHERE = {"page", "serve", "schedule", "stop"}
# Two steps instead of minutes.
SHORT = ("--steps", "2", "--width", "4", "--batch-size", "4", "--shown-songs", "0")


@pytest.fixture(scope="module")
def work(demo_root: Path, demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands name: songs, a store, five models, estimates."""
    work = tmp_path_factory.mktemp("guides")
    for name in ("SONGS", "MUSDB18"):
        (work / name).symlink_to(demo_root)
    shutil.copytree(demo_store.path, work / "data/spectrograms.zarr")
    bundled = open_registry(Path("nowhere")).open("bundled")
    registry = ModelRegistry(work / "data/models")
    for _ in range(5):
        registry.add(bundled.load_weights(), bundled.description)
    registry.promote(1)
    for name in ("more", "mir1k", "instrumentals"):
        (work / name).mkdir()
    for song in open_dataset(demo_root).songs:
        sources, rate = read_sources(song, ("mixture", "vocals", "accompaniment"))
        soundfile.write(work / "more" / f"{song.id}.wav", sources["mixture"].T, rate)
        soundfile.write(work / "instrumentals" / f"{song.id}.wav", sources["accompaniment"].T, rate)
        sides = [sources["accompaniment"].mean(axis=0), sources["vocals"].mean(axis=0)]
        soundfile.write(work / "mir1k" / f"{song.id}.flac", list(zip(*sides, strict=True)), rate)
        for folder in (work / "FOLDER" / song.name, work / "TRUE_FOLDER", work / "ESTIMATED_FOLDER"):
            folder.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / "vocals.wav", sources["vocals"].T, rate)
            soundfile.write(folder / "accompaniment.wav", sources["accompaniment"].T, rate)
    soundfile.write(work / "song.mp3", sources["mixture"].T, rate)
    return work


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as (address, _):
        yield address


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_commands_run_as_they_are_written(
    guide: Path, work: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = use(server, monkeypatch)
    for program, *arguments in command_lines(guide):
        if program != "vocsep" or arguments[0] in ELSEWHERE:
            continue
        words = [word.replace("s3://bucket", bucket) for word in arguments]
        if words[0] == "train" and "--help" not in words:
            words += SHORT
        result = run_forked("vocsep.cli.main", *words, folder=work, environment=os.environ)
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stdout}{result.stderr}"
