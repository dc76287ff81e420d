"""The flow `compare` as a user runs it: a report, its table in Prefect, and nothing trained twice."""

import subprocess
from pathlib import Path

from storage.files import read_json
from tests.flows.conftest import Run, clean_environment
from tests.flows.prefect_api import artifacts
from tests.forked import run_forked
from tests.vocsep.training.training_runs import ALL_BINS, small_store

TINY = ("--systems", "notebook,project", "--no-ladder", "--seeds", "1", "--steps", "2", "--batch-size", "2")


def test_compare_leaves_a_report_and_trains_nothing_twice(run_flows: Run, prefect_server: str, tmp_path: Path) -> None:
    small_store(tmp_path / "songs.zarr", ("train", "train", "valid"), spectrogram=ALL_BINS)
    command = ("compare", "--store", "songs.zarr", "--output", "out", "--width", "1", "--validations", "1", *TINY)
    first = run_flows(tmp_path, *command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "report: out/report.md" in first.stdout
    report = (tmp_path / "out/report.md").read_text()
    assert "project" in report
    assert (tmp_path / "out/curves.png").is_file()
    (table,) = artifacts(prefect_server, "comparison")
    assert "| notebook |" in table["data"]
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").rglob("result.json")}
    assert len(results) == 2
    assert {read_json(path)["seed"] for path in results} == {0}
    second = run_flows(tmp_path, *command)
    assert second.returncode == 0, second.stdout + second.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").rglob("result.json")} == results


def test_compare_without_a_store_of_all_bins_is_one_line(tmp_path: Path) -> None:
    def refused(store: str) -> "subprocess.CompletedProcess[str]":
        """Before there is a run, and a server is needed."""
        arguments = ("compare", "--store", store, "--output", "out", *TINY)
        return run_forked("flows.cli", *arguments, folder=tmp_path, environment=clean_environment())

    small_store(tmp_path / "even.zarr", ("train", "train", "valid"))
    result = refused("even.zarr")
    assert result.returncode == 2
    assert "bins" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    result = refused("none.zarr")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "error: none.zarr: no store; run make preprocess PRESET=fine-513 STORE=none.zarr"
    )
