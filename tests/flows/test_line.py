"""The whole line on a tiny demo dataset, as a user runs it: real processes, Prefect server and Dask cluster."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from flows.cli import steps
from storage.manifest import Manifest
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.flows.conftest import Run
from tests.flows.prefect_api import found
from tests.helpers import free_port
from tests.reference import museval
from tests.stores import shard_times
from tests.vocsep.evaluation.report_pages import assert_self_contained, parsed_page
from vocsep.cli.main import app

STORE = Path("data/spectrograms.zarr")
NOBODY = "http://127.0.0.1:9"


def test_preprocess_train_and_evaluate_leave_store_model_and_report(trained: Path) -> None:
    store = SpectrogramStore.open(trained / STORE)
    assert {split: len(store.tracks(split)) for split in ("train", "valid", "test")} == {
        "train": 3,
        "valid": 1,
        "test": 2,
    }
    assert store.damaged_shards() == []
    # Few steps make no better model than the one that comes with vocsep.
    assert ModelRegistry(trained / "data/models").versions() == [1]
    summary = json.loads((trained / "data/reports/latest/summary.json").read_text())
    assert list(summary["rows"]) == ["model", "bundled", "mixture", "irm1", "irm2", "irm1_full", "irm2_full"]
    for row in summary["rows"].values():
        for source in ("vocals", "accompaniment"):
            assert set(row[source]) == {"SDR", "ISR", "SIR", "SAR", "SI-SDR", "song SDR"}
            assert all(set(figures) == {"median", "mean"} for figures in row[source].values())
    assert summary["songs"] == 2
    assert summary["comparisons"] == []
    assert 0 < summary["ceiling"]["way_from_floor"] < 1
    floor, ceiling = (summary["rows"][row]["vocals"]["SDR"]["median"] for row in ("mixture", "irm1"))
    assert ceiling > summary["rows"]["model"]["vocals"]["SDR"]["median"] > floor
    listed = CliRunner().invoke(
        app, ["models", "list", "--models", str(trained / "data/models"), "--reports", str(trained / "data/reports")]
    )
    (line,) = [line.split() for line in listed.stdout.splitlines() if line.startswith("1 ")]
    assert line[-2:] == [f"{summary['rows']['model']['vocals']['SDR']['median']:.2f}", "2"]
    for picture in ("songs.png", "over_time.png"):
        assert (trained / "data/reports/latest" / picture).read_bytes().startswith(b"\x89PNG")


def test_page_of_the_report_plays_both_songs_and_needs_no_other_file(trained: Path) -> None:
    page = parsed_page(trained / "data/reports/latest/report.html")
    assert_self_contained(page)
    names = [path.name.removesuffix(".stem.mp4") for path in (trained / "songs/test").glob("*.stem.mp4")]
    assert len(page.players) == len(names) == 2
    assert all(name in page.text for name in names)


def test_each_step_says_what_it_wrote_and_what_comes_next(trained: Path) -> None:
    output = (trained / "output.txt").read_text()
    assert "6 songs written" in output
    assert "data/models/0001" in output
    assert "report.html" in output
    assert "report.md" in output
    assert output.count("next:") == 3


def test_prefect_names_every_run_by_what_it_does_and_describes_every_artifact(
    trained: Path, prefect_server: str
) -> None:
    names = {
        "preprocess": f"preprocess 6 songs of {(trained / 'songs').name}, fine",
        "train": "train tfc-tdf, 40 steps",
        "evaluate": "evaluate model 1",
    }
    for flow, name in names.items():
        runs = found(
            prefect_server, "flow_runs", flows={"name": {"any_": [flow]}}, flow_runs={"name": {"any_": [name]}}
        )
        assert runs, name
        ids = [run["id"] for run in runs]
        tasks = found(prefect_server, "task_runs", flow_runs={"id": {"any_": ids}})
        assert {task["name"] for task in tasks} == {name}
        shown = found(prefect_server, "artifacts", flow_runs={"id": {"any_": ids}})
        assert len(shown) > 1
        assert all(artifact["description"] for artifact in shown), shown
        # Prefect's own lines are in its logs, and not between the progress bars.
        lines = [line["message"] for line in found(prefect_server, "logs", logs={"flow_run_id": {"any_": ids}})]
        assert any("Finished in state Completed" in line for line in lines)
    errors = (trained / "errors.txt").read_text()
    assert "validation SDR" in errors
    assert not [word for word in ("Finished in state", "Beginning flow run", "Completed(") if word in errors]


def test_museval_itself_reads_the_track_files(trained: Path) -> None:
    methods = museval.EvalStore()
    methods.add_eval_dir(trained / "data/reports/latest/model")
    scores = methods.agg_frames_tracks_scores()
    summary = json.loads((trained / "data/reports/latest/summary.json").read_text())
    expected = summary["rows"]["model"]["vocals"]["SDR"]["median"]
    assert scores["vocals"]["SDR"] == pytest.approx(expected, abs=1e-4)


def test_a_second_preprocess_does_nothing_and_a_changed_song_is_done_alone(
    trained: Path, tmp_path: Path, run_flows: Run
) -> None:
    shutil.copytree(trained / "songs", tmp_path / "songs")
    shutil.copytree(trained / "data", tmp_path / "data", symlinks=True)
    manifest = Manifest.load(tmp_path / STORE)
    before = shard_times(tmp_path / STORE)
    # Nobody is behind these proxies.
    again = run_flows(tmp_path, "preprocess", "--dataset", "songs", HTTP_PROXY=NOBODY, http_proxy=NOBODY)
    assert again.returncode == 0, again.stderr
    assert "0 songs written, 6 unchanged" in again.stdout
    assert shard_times(tmp_path / STORE) == before

    # Of one split: a song of another one would be in both.
    first, second, *_ = (
        tmp_path / "songs" / "train" / f"{track.name}.stem.mp4"
        for track in sorted(manifest.tracks.values(), key=lambda track: track.name)
        if track.split == "train"
    )
    shutil.copyfile(second, first)
    changed = run_flows(
        tmp_path, "preprocess", "--dataset", "songs", ALL_PROXY="socks5://127.0.0.1:9", http_proxy=NOBODY
    )
    assert "1 songs written, 5 unchanged" in changed.stdout, changed.stdout + changed.stderr
    track = next(track for track in manifest.tracks.values() if track.name == first.name.removesuffix(".stem.mp4"))
    touched = {path for path, modified in shard_times(tmp_path / STORE).items() if before[path] != modified}
    assert touched == {array.shard for array in track.arrays.values()}


def test_a_broken_song_is_named_and_the_others_are_kept(trained: Path, tmp_path: Path, run_flows: Run) -> None:
    shutil.copytree(trained / "songs", tmp_path / "songs")
    broken = sorted((tmp_path / "songs/train").glob("*.stem.mp4"))[0]
    broken.write_bytes(broken.read_bytes()[:20_000])
    result = run_flows(tmp_path, "preprocess", "--dataset", "songs")
    assert result.returncode == 1
    error = result.stderr[result.stderr.rindex("error: ") :]
    assert "1 of 6 songs failed" in error
    assert broken.name in error
    assert "Traceback" not in error
    store = SpectrogramStore.open(tmp_path / STORE)
    assert len(store.manifest.tracks) == 5


def test_an_existing_dask_cluster_writes_the_same_bytes_and_gives_the_same_scores(
    trained: Path, tmp_path: Path, run_flows: Run, flows_environment: dict[str, str]
) -> None:
    """Scheduler and workers are separate processes, in separate folders."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    scheduler = [f"{dask[2]}scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", ":0"]
    worker = [f"{dask[2]}worker", address, "--nthreads", "1", "--no-dashboard"]
    processes = []
    for number, command in enumerate((scheduler, worker, worker)):
        (tmp_path / str(number)).mkdir()
        processes.append(
            subprocess.Popen(
                [*dask[:2], *command],
                cwd=tmp_path / str(number),
                env=flows_environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
    try:
        songs, models = str(trained / "songs"), str(trained / "data/models")
        steps = ["preprocess", "--dataset", songs, "evaluate", "--dataset", songs, "--models", models]
        result = run_flows(tmp_path, *steps, DASK_ADDRESS=address)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=600)
    assert result.returncode == 0, result.stderr
    expected = Manifest.load(trained / STORE)
    assert Manifest.load(tmp_path / STORE).data_digest == expected.data_digest
    rows = [
        json.loads((folder / "data/reports/latest/summary.json").read_text())["rows"] for folder in (trained, tmp_path)
    ]
    for row, sources in rows[0].items():
        for source, metrics in sources.items():
            for metric, figures in metrics.items():
                assert rows[1][row][source][metric] == pytest.approx(figures, abs=1e-6)


def test_separate_flow_writes_stems_that_sum_to_the_song(trained: Path, tmp_path: Path, run_flows: Run) -> None:
    rng = np.random.default_rng(0)
    song = (0.1 * rng.standard_normal((48000, 2))).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", song, 48000, subtype="FLOAT")
    models = str(trained / "data/models")
    result = run_flows(tmp_path, "separate", "song.wav", "--output", "out", "--models", models)
    assert result.returncode == 0, result.stderr
    stems = [
        soundfile.read(tmp_path / "out/song" / f"{stem}.wav", always_2d=True) for stem in ("vocals", "accompaniment")
    ]
    assert all(rate == 48000 for _, rate in stems)
    np.testing.assert_allclose(stems[0][0] + stems[1][0], song, atol=1e-6)


def test_a_command_line_is_split_at_the_names_of_steps_but_not_at_values() -> None:
    line = ["preprocess", "--preset", "fine", "train", "--steps", "3", "evaluate", "--split", "train"]
    assert steps(line) == [line[:3], line[3:6], line[6:]]
    assert steps(["--help"]) == [["--help"]]
