"""The flow `retrain` as a user runs it: killed in every stage, it resumes, and does nothing twice."""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import UserError
from storage.files import file_digest, read_json
from storage.lock import store_lock
from storage.manifest import Manifest, SourceFile
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.flows.conftest import Run, flow_process, wait_until
from tests.flows.prefect_api import artifacts
from tests.stores import shard_times, track_folders
from vocsep.retraining.step import RetrainConfig, RetrainSongs, check
from vocsep.training.log import read_metrics

STORE = Path("data/spectrograms.zarr")
SETTINGS = [
    *("--steps", "60", "--batch-size", "2", "--width", "2", "--channels", "1", "--device", "cpu"),
    *("--checkpoint-seconds", "0.5", "--shown-songs", "0", "--workers", "1"),
]


def is_as_it_was(songs: Path, source: SourceFile) -> bool:
    """Whether a song's file is the one that its track was made from."""
    file = songs.joinpath(*Path(source.path).parts[-2:])
    return file.is_file() and file_digest(file) == source.sha256


def kill_when(reached: Callable[[], bool], folder: Path, environment: dict[str, str]) -> None:
    """Start a retraining, and kill it (-9) as soon as it got somewhere."""
    with flow_process(folder, environment, "retrain", "--dataset", "songs", *SETTINGS) as process:
        wait_until(reached, process)


def test_killed_in_every_stage_it_goes_on_and_the_champion_stays_unless_the_new_model_is_surely_better(
    trained: Path, tmp_path: Path, flows_environment: dict[str, str], run_flows: Run, prefect_server: str
) -> None:
    shutil.copytree(trained / "songs", tmp_path / "songs")
    shutil.copytree(trained / "data", tmp_path / "data", symlinks=True)
    data = tmp_path / "data"
    registry = ModelRegistry(data / "models")
    registry.promote(1)
    champion = registry.open().load_weights()
    first, second, third, fourth = sorted((tmp_path / "songs/train").glob("*.stem.mp4"))
    contents = [path.read_bytes() for path in (second, third, first)]
    for path, content in zip((first, second, third), contents, strict=True):
        path.write_bytes(content)
    fourth.unlink()

    def old_champion_is_whole() -> None:
        assert registry.champion() == 1
        assert {name: value.tobytes() for name, value in registry.open().load_weights().items()} == {
            name: value.tobytes() for name, value in champion.items()
        }

    # Preprocessing
    since = time.time_ns()

    def one_is_made() -> bool:
        for folder in track_folders(tmp_path / STORE):
            with contextlib.suppress(FileNotFoundError):
                if folder.stat().st_ctime_ns > since:
                    return True
        return False

    kill_when(one_is_made, tmp_path, flows_environment)
    # What the manifest names and was made from the songs as they are now is finished; the rest is still to be made.
    kept = {
        array.shard
        for track in Manifest.load(tmp_path / STORE).tracks.values()
        for array in track.arrays.values()
        if all(is_as_it_was(tmp_path / "songs", source) for source in track.sources)
    }
    kept_times = {shard: modified for shard, modified in shard_times(tmp_path / STORE).items() if shard in kept}
    assert not list(data.glob("retrain/*/job.json"))
    old_champion_is_whole()

    # Training
    kill_when(lambda: bool(list(data.glob("runs/retrain-*/*/checkpoints/step-*.json"))), tmp_path, flows_environment)
    assert len(SpectrogramStore.open(tmp_path / STORE).manifest.tracks) == 5
    shards = shard_times(tmp_path / STORE)
    assert kept_times.items() <= shards.items()
    (run,) = data.glob("runs/retrain-*/*")
    assert read_json(run / "run.json")["status"] == "running"
    step = min(int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.json"))
    rows = [row for row in read_metrics(run) if int(row["step"]) <= step]
    assert registry.versions() == [1]
    old_champion_is_whole()

    # Evaluation
    kill_when(lambda: bool(list(data.glob("reports/*-retrain-*/scores/[!.]*.json"))), tmp_path, flows_environment)
    assert registry.versions() == [1, 2]
    assert list(data.glob("runs/retrain-*/*")) == [run]
    assert read_metrics(run)[: len(rows)] == rows  # not trained anew
    finished = {path: path.stat().st_mtime_ns for path in data.glob("reports/*-retrain-*/scores/[!.]*.json")}
    weights = (data / "models/0002/model.safetensors").read_bytes()
    old_champion_is_whole()

    result = run_flows(tmp_path, "retrain", "--dataset", "songs", *SETTINGS)
    assert result.returncode == 0, result.stdout + result.stderr
    assert shard_times(tmp_path / STORE) == shards
    assert list(data.glob("runs/retrain-*/*")) == [run]
    assert registry.versions() == [1, 2]
    assert (data / "models/0002/model.safetensors").read_bytes() == weights
    scores = {path: path.stat().st_mtime_ns for path in data.glob("reports/*-retrain-*/scores/[!.]*.json")}
    assert len(scores) == 2
    assert finished.items() <= scores.items()
    (job,) = data.glob("retrain/*/job.json")
    assert read_json(job)["finished"] is True

    # The decision rests on the songs that both were scored on, and is told.
    decision = read_json(job)["decision"]
    summary = read_json(data / "reports/latest/summary.json")
    assert (decision["champion"], decision["challenger"], decision["songs"]) == (1, 2, 2)
    (comparison,) = summary["comparisons"]
    assert comparison["other"] == "champion"
    assert comparison["mean_db"] == pytest.approx(decision["mean_db"])
    assert decision["promote"] == (decision["least_db"] > 0)
    assert registry.champion() == (2 if decision["promote"] else 1)
    report = artifacts(prefect_server, "retrain-report")[0]["data"]
    assert report == (job.parent / "report.md").read_text()
    assert decision["reason"] in report
    assert "5 new" in report


def test_dataset_that_lost_most_of_its_songs_is_refused(
    demo_root: Path, copy_of_demo_store: Callable[[], SpectrogramStore], tmp_path: Path
) -> None:
    shutil.copytree(demo_root, tmp_path / "songs")
    songs = RetrainSongs(dataset=tmp_path / "songs", store=copy_of_demo_store().path)
    config = RetrainConfig(preprocessing=songs, models=tmp_path / "models", jobs=tmp_path / "jobs")
    check(config)
    for song in sorted((tmp_path / "songs").glob("*/*.stem.mp4"))[:4]:
        song.unlink()
    with pytest.raises(UserError, match=r"4 of 6 songs are gone; nothing was changed"):
        check(config)


def test_dataset_without_test_songs_is_refused_before_anything_is_trained(demo_root: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_root / "train", tmp_path / "songs" / "train")
    songs = RetrainSongs(dataset=tmp_path / "songs", store=tmp_path / "s.zarr")
    with pytest.raises(UserError, match="no songs in the test split"):
        check(RetrainConfig(preprocessing=songs, models=tmp_path / "models", jobs=tmp_path / "jobs"))


def test_damaged_champion_is_named_before_anything_is_done(
    copy_of_demo_store: Callable[[], SpectrogramStore], tmp_path: Path
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    registry.add({}, {})
    registry.promote(1)
    (registry.path / "0001" / "model.safetensors").write_bytes(b"damaged")
    songs = RetrainSongs(store=copy_of_demo_store().path)
    config = RetrainConfig(preprocessing=songs, models=registry.path, jobs=tmp_path / "jobs")
    with pytest.raises(UserError, match=r"0001/model.safetensors: missing or damaged; .*rollback"):
        check(config)


def test_second_retraining_is_refused_while_one_runs(tmp_path: Path) -> None:
    songs = RetrainSongs(store=tmp_path / "s.zarr")
    config = RetrainConfig(preprocessing=songs, jobs=tmp_path / "jobs", models=tmp_path / "models")
    with store_lock(tmp_path / "jobs"), pytest.raises(UserError, match="being written by process"):
        check(config)
