"""Models that ask for more than there is, or are not what they say: one line, and nothing large is made first."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.registry import CHAMPION_NAME, DESCRIPTION_NAME, WEIGHTS_NAME, ModelRegistry
from tests.helpers import one_line
from tests.vocsep.models.small_models import lively
from vocsep.models.registry import open_registry
from vocsep.separation.separator import Separator
from vocsep.spectrograms.config import load_spectrogram_config

FITTING = {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": None}
PRESET = load_spectrogram_config("fine").model_dump(mode="json")


def add(folder: Path, architecture: Any = FITTING, spectrogram: Any = PRESET, **weights: Any) -> Path:
    """A model of the tiny network's weights, whose description says something else."""
    held = {name: value.numpy() for name, value in lively(1).state_dict().items()} | weights
    description = {"architecture": architecture, "spectrogram": spectrogram, "targets": ["vocals"]}
    return ModelRegistry(folder).add(held, description).path


def refused(path: Path, *parts: object) -> None:
    one_line(lambda: Separator.load(str(path), path.parent), path, *parts)


@pytest.mark.parametrize(
    "architecture",
    [
        None,
        "unet",
        [],
        {},
        FITTING | {"name": "other"},
        FITTING | {"width": 5000},
        FITTING | {"width": 1024},
        FITTING | {"width": 0},
        FITTING | {"width": 1e9},
        FITTING | {"channels": 1 << 40},
        FITTING | {"targets": -1},
        FITTING | {"input": "root", "scaled_bins": 1_000_000_000},
        FITTING | {"input": "root", "scaled_bins": 100},
        FITTING | {"more": 1},
        {"name": "tfc-tdf", "channels": 1, "width": 24, "targets": 1, "bins": 1 << 60},
        {"name": "tfc-tdf", "channels": 1, "width": 1024, "targets": 1, "bins": 512},
        {"name": "tfc-tdf", "channels": 1, "width": 24, "targets": 1, "bins": 64},
    ],
)
def test_architecture_that_the_weights_are_not_of_is_one_line(tmp_path: Path, architecture: Any) -> None:
    refused(add(tmp_path, architecture))


@pytest.mark.parametrize(
    "change",
    [
        {"hop_length": 1},
        {"hop_length": 0},
        {"n_fft": 1 << 40},
        {"n_fft": -2},
        {"sample_rate": 0},
        {"sample_rate": 1e300},
        {"channels": 0},
        {"dropped_bin": "all"},
    ],
)
def test_spectrogram_that_cannot_be_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    refused(add(tmp_path, spectrogram=PRESET | change), next(iter(change)))
    refused(add(tmp_path, spectrogram=None))


def test_weights_of_another_type_are_one_line(tmp_path: Path) -> None:
    name = "to_mask.bias"
    refused(add(tmp_path, **{name: np.zeros(1, np.int64)}), name)


def test_weights_far_larger_than_what_they_are_said_to_be_are_not_read(tmp_path: Path) -> None:
    path = add(tmp_path)
    os.truncate(path / WEIGHTS_NAME, 1 << 40)
    refused(path, WEIGHTS_NAME, "larger")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", "", "{", '{"weights_sha256": 1}'])
@pytest.mark.parametrize("name", [DESCRIPTION_NAME, CHAMPION_NAME])
def test_description_or_champion_that_is_none_is_one_line(tmp_path: Path, name: str, content: str) -> None:
    path = add(tmp_path)
    (path / name if name == DESCRIPTION_NAME else tmp_path / name).write_text(content)
    model = "1" if name == DESCRIPTION_NAME else "champion"
    one_line(lambda: open_registry(tmp_path).open(model), tmp_path, name)


def test_champion_that_is_no_file_is_one_line_for_all_that_read_and_write_it(tmp_path: Path) -> None:
    registry = open_registry(add(tmp_path).parent)
    (tmp_path / CHAMPION_NAME).mkdir()
    one_line(registry.champion, CHAMPION_NAME)
    one_line(lambda: registry.promote(1), CHAMPION_NAME)
    (tmp_path / CHAMPION_NAME).rmdir()
    (tmp_path / CHAMPION_NAME).symlink_to("/dev/zero")
    one_line(registry.champion, CHAMPION_NAME)


@pytest.mark.parametrize("version", [1e999, -1, 0, 10**30, None, "x", []])
def test_champion_that_names_no_version_is_one_line(tmp_path: Path, version: Any) -> None:
    registry = open_registry(add(tmp_path).parent)
    champions = [{"version": version, "since": "", "why": ""}]
    (tmp_path / CHAMPION_NAME).write_text(json.dumps({"champions": champions}))
    one_line(lambda: registry.open("champion"))
    registry.promote(1)
    assert registry.champion() == 1


@pytest.mark.parametrize("name", ["9" * 5000, "x" * 5000, "a\0b", "/dev/zero", "/dev", "..", ""])
def test_names_that_no_model_has_are_one_line(tmp_path: Path, name: str) -> None:
    one_line(lambda: open_registry(tmp_path).open(name), "no such model")
