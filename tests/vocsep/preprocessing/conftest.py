"""Songs to bring stores up to date with."""

import shutil
from pathlib import Path

import pytest
import soundfile

from vocsep.demo.dataset import synthesize_song


@pytest.fixture
def songs(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the demo songs, to change."""
    shutil.copytree(demo_root, tmp_path / "songs")
    return tmp_path / "songs"


@pytest.fixture
def real_songs(tmp_path: Path) -> Path:
    """Two songs of one second in folders."""
    for index, split in enumerate(("train", "test")):
        folder = tmp_path / "real" / split / f"Song {index}"
        folder.mkdir(parents=True)
        parts = synthesize_song(0, index, 1.0, 11025)
        for name in ("mixture", "vocals"):
            soundfile.write(folder / f"{name}.wav", parts[name].T, 11025)
    return tmp_path / "real"
