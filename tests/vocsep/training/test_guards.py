"""NaN and infinity anywhere in training: the run stops, names what it was, and can be repeated."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.checkpoints import CheckpointFolder
from storage.errors import UserError
from storage.files import read_json
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.training.training_runs import (
    Arrays,
    checkpoint_of,
    fit_in_children,
    quick,
    small_store,
    status_of,
    train,
)
from vocsep.patches.pool import SongPool
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.batches import patch_sampler

SPOILED = 240
FRAMES = 251
SETTINGS: dict[str, Any] = {
    "steps": 60,
    "batch_size": 2,
    "checkpoint_seconds": 1e-6,
    "augmentation": {"tempo": 0},
}


def spoil(name: str, arrays: Arrays) -> None:
    """NaN in the last frames of song 2."""
    if name == "Song 2":
        for source in ("mixture", "vocals"):
            arrays[source][0, SPOILED:, 7] = np.nan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    splits = ("train", "train", "train", "valid")
    return small_store(tmp_path_factory.mktemp("guards") / "store.zarr", splits, change=spoil)


def first_bad_step(store: SpectrogramStore, **settings: Any) -> tuple[int, list[int]]:
    """The first step, counted from 0, that reads frames of song 2 that hold NaN, and where such patches begin."""
    config = quick(**(SETTINGS | settings))
    sampler = patch_sampler(config, SongPool(store))
    for step in range(60):
        draws = sampler.draw(step).vocals
        starts = [
            int(start)
            for track, start in zip(draws.track, draws.start, strict=True)
            if store.tracks("train")[track].name == "Song 2" and start + PATCH_FRAMES > SPOILED
        ]
        if starts:
            return step, starts
    raise AssertionError("no step reads them")


def failure(store: SpectrogramStore, folder: Path, resume: str = "never", **changed: Any) -> str:
    with pytest.raises(UserError) as error:
        train(store, folder, resume=resume, **(SETTINGS | changed))
    assert "\n" not in str(error.value)
    return str(error.value)


def without_paths(line: str) -> str:
    return re.sub(r"\S+/\S+", "PATH", line)


@pytest.mark.parametrize("data", ["host", "stream"])
def test_nan_in_a_song_stops_naming_step_song_and_frame_and_can_be_repeated(
    store: SpectrogramStore, tmp_path: Path, data: str
) -> None:
    step, starts = first_bad_step(store)
    assert step > 1, "the test is to have good steps before the bad one"
    line = failure(store, tmp_path, data=data)
    assert line.startswith(f"step {step + 1}: loss is nan")
    named = [int(start) for start in re.findall(r"Song 2 \(frame (\d+)\)", line)]
    assert sorted(named) == sorted(starts)
    assert all(FRAMES - PATCH_FRAMES >= start > SPOILED - PATCH_FRAMES for start in named)
    assert "store verify" in line
    assert ModelRegistry(tmp_path / "models").versions() == []
    (run,) = (tmp_path / "runs").iterdir()
    assert status_of(run) == "failed"

    good = checkpoint_of(run)
    assert good.step == step
    assert all(np.isfinite(value).all() for value in good.arrays.values())
    assert f"--resume {run}/failed" in line
    assert "Song 2" in str(read_json(run / "failed" / "run.json")["patches"])

    again = failure(store, tmp_path, resume=f"{run}/failed", data=data)
    assert without_paths(again) == without_paths(line)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert checkpoint_of(run).step == step


def test_only_songs_that_hold_nan_are_named_wherever_it_is_noticed(store: SpectrogramStore, tmp_path: Path) -> None:
    for batch_size in (1, 8):
        settings: dict[str, Any] = {"batch_size": batch_size, "augmentation": {"tempo": 0, "remix": 0}}
        line = failure(store, tmp_path, **settings)
        named = re.findall(r"(Song \d) \(frames? (?:from )?(\d+)", line)
        assert named, line
        assert all(song == "Song 2" and int(start) + PATCH_FRAMES > SPOILED for song, start in named), line
        assert "learning rate" not in line


def test_infinity_is_stopped_too(tmp_path: Path) -> None:
    def change(name: str, arrays: Arrays) -> None:
        if name == "Song 1":
            arrays["vocals"][:] = np.inf

    store = small_store(tmp_path / "store.zarr", ("train", "train", "valid"), change=change)
    line = failure(store, tmp_path)
    assert re.match(r"step \d+: loss is (inf|nan)", line)
    assert "Song 1" in line
    assert ModelRegistry(tmp_path / "models").versions() == []


def test_auto_does_not_go_on_with_a_failed_run(store: SpectrogramStore, tmp_path: Path) -> None:
    failure(store, tmp_path)
    failure(store, tmp_path, resume="auto")
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert [status_of(run) for run in runs] == ["failed", "failed"]


def test_run_whose_song_was_mended_goes_on_from_its_last_good_checkpoint(tmp_path: Path) -> None:
    splits = ("train", "train", "train", "valid")
    spoiled = small_store(tmp_path / "spoiled.zarr", splits, change=spoil)
    step, _ = first_bad_step(spoiled)
    failure(spoiled, tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    # Other data is other data, even if it is better: the run stays as it is.
    fixed = small_store(tmp_path / "fixed.zarr", splits)
    assert "other training data" in failure(fixed, tmp_path, resume=str(run))
    # The same songs with other steps: a smaller budget ends before the bad one.
    settings = SETTINGS | {"steps": step}
    assert train(spoiled, tmp_path, resume=str(run), **settings).steps == step


@pytest.mark.parametrize("learning_rate", [1e38])
def test_learning_rate_that_makes_the_network_explode_ends_in_one_line(tmp_path: Path, learning_rate: float) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "train", "valid"))
    line = failure(store, tmp_path, learning_rate=learning_rate, steps=30, warmup=0)
    assert re.match(r"step \d+: loss is ", line)
    assert "lower the learning rate" in line
    assert "verify" not in line
    assert ModelRegistry(tmp_path / "models").versions() == []
    (run,) = (tmp_path / "runs").iterdir()
    assert CheckpointFolder(run / "failed" / "checkpoints").newest()[0] is not None
    again = failure(store, tmp_path, resume=f"{run}/failed", learning_rate=learning_rate, steps=30, warmup=0)
    assert without_paths(again) == without_paths(line)


def test_nan_in_the_share_of_one_of_two_processes_stops_both_and_names_the_song(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    # Two patches per step: each process has one of them.
    step, starts = first_bad_step(store)
    children = fit_in_children(2, store, tmp_path, "never", **SETTINGS)
    assert [child.wait() for child in children] == [2, 2], [child.messages for child in children]
    lines = [line for child in children for line in child.messages.splitlines() if line.startswith("error: ")]
    assert any(f"step {step + 1}: " in line and f"Song 2 (frame {starts[0]})" in line for line in lines), lines
    assert not any("patches were sound" in line for line in lines)
    (run,) = (tmp_path / "runs").iterdir()
    assert status_of(run) == "failed"
    assert checkpoint_of(run).step == step
    assert ModelRegistry(tmp_path / "models").versions() == []
