"""The trained model that comes with vocsep."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.registry import ModelRegistry
from tests.forked import run_forked
from vocsep.datasets.layouts import open_dataset
from vocsep.models.registry import BUNDLED, open_registry
from vocsep.models.torch_network import TorchNetwork, load_network
from vocsep.separation.separator import Separator


def vocsep(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_forked("vocsep.cli.main", *arguments, folder=folder, environment=os.environ)


def test_it_is_small_intact_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 5e6
    model = open_registry(Path("nowhere")).open("bundled")
    model.verify()
    masks = TorchNetwork(load_network(model))(np.random.default_rng(0).random((1, 2, 128, 512), dtype=np.float32))
    assert ((masks >= 0) & (masks <= 1)).all()
    assert masks.std() > 0.01
    card = (BUNDLED / "README.md").read_text()
    for one in model.description["recipe"]["sets"]:
        assert one["licence"] in card
    assert f"{model.description['scores']['rows']['model']['vocals']['SDR']['median']:.2f}" in card
    assert hashlib.sha256((BUNDLED / "model.safetensors").read_bytes()).hexdigest() in card


def test_it_was_trained_on_no_test_song(preview_root: Path) -> None:
    data = open_registry(Path("nowhere")).open("bundled").description["data"]
    assert not {song.name for song in open_dataset(preview_root).split("test")} & {*data["train"], *data["valid"]}


def test_it_is_in_use_until_there_is_a_champion_and_has_a_name_for_ever(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "models")
    assert registry.open("champion").path == registry.open("bundled").path == BUNDLED
    bundled = registry.open("bundled")
    own = registry.add(bundled.load_weights(), {"architecture": bundled.description["architecture"]})
    assert registry.open("champion").path == BUNDLED
    assert own.version is not None
    registry.promote(own.version)
    assert registry.open("champion").version == own.version
    assert registry.open("bundled").path == BUNDLED
    assert ModelRegistry(tmp_path / "models").open("champion").version == own.version


def test_a_song_is_separated_right_after_installation(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (44100, 2)).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", noise, 44100, subtype="FLOAT")
    result = vocsep(tmp_path, "separate", "song.wav", "-o", "out")
    assert result.returncode == 0, result.stderr
    vocals, accompaniment = (
        soundfile.read(tmp_path / "out" / "song" / f"{stem}.wav", dtype="float32")[0]
        for stem in ("vocals", "accompaniment")
    )
    np.testing.assert_allclose(vocals + accompaniment, noise, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "song.wav"]
    listed = vocsep(tmp_path, "models", "list")
    assert listed.returncode == 0
    (line,) = [line.split() for line in listed.stdout.splitlines() if line.startswith("bundled")]
    # The card names the steps of each of its trainings.
    steps = sum(map(int, re.findall(r"(\d+) steps of", (BUNDLED / "README.md").read_text())))
    assert str(steps) in line


def test_silence_stays_silent() -> None:
    stems = Separator.load("bundled", Path("nowhere")).separate(np.zeros((2, 50_000), dtype=np.float32), 44100)
    assert not np.any(stems["vocals"])


@pytest.mark.parametrize("name", ["0001", "latest"])
def test_other_names_still_want_models_of_ones_own(tmp_path: Path, name: str) -> None:
    result = vocsep(tmp_path, "models", "show", name)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
