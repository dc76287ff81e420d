"""The flow `train` as a user runs it: what it shows in Prefect, and how it ends when it is told to."""

import signal
from pathlib import Path
from typing import Any

import pytest

from storage.files import read_json
from tests.flows.conftest import Run, flow_process, wait_until
from tests.flows.prefect_api import artifacts, found, last_step

STORE = "data/spectrograms.zarr"


def newest_train_run(server: str) -> dict[str, Any]:
    return found(server, "flow_runs", flows={"name": {"any_": ["train"]}})[0]


def test_training_leaves_a_full_progress_bar_and_a_table_of_its_result(trained: Path, prefect_server: str) -> None:
    run = next((trained / "data/runs").iterdir())
    content = read_json(run / "run.json")
    results = [artifact["data"] for artifact in artifacts(prefect_server, "train-result")]
    (result,) = [text for text in results if str(run.relative_to(trained)) in text]
    assert "data/models/0001" in result
    assert str(content["metrics"]["valid_sdr_db"]) in result
    assert "is_champion" in result
    progress = artifacts(prefect_server, "train-progress")
    assert progress
    assert all(artifact["type"] == "progress" for artifact in progress)
    assert 100.0 in [artifact["data"] for artifact in progress]


@pytest.fixture
def command(trained: Path) -> list[str]:
    """Training that would take hours."""
    options = "--steps 1000000 --batch-size 2 --width 2 --channels 1 --device cpu"
    return ["train", "--store", str(trained / STORE), *options.split()]


def stop(command: list[str], folder: Path, environment: dict[str, str], number: int, after: int) -> str:
    """Send a signal once the training in `folder` has done `after` steps; returns what the process said."""
    with flow_process(folder, environment, *command) as process:
        wait_until(lambda: last_step(folder / "data/runs") >= after, process)
        process.send_signal(number)
        output = "".join(process.communicate())
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    assert output.count("stopped by ") == 1, output
    return output


def test_sigterm_and_ctrl_c_save_the_run_and_the_same_command_goes_on(
    command: list[str], tmp_path: Path, flows_environment: dict[str, str], prefect_server: str
) -> None:
    output = stop(command, tmp_path, flows_environment, signal.SIGTERM, 20)
    (run,) = (tmp_path / "data/runs").iterdir()
    assert read_json(run / "run.json")["status"] == "stopped"
    (step,) = [int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.json")]
    assert f"stopped by SIGTERM after step {step}; the same command resumes" in output
    state = newest_train_run(prefect_server)["state"]
    assert state["type"] == "FAILED"
    assert f"stopped by SIGTERM after step {step}" in state["message"]

    output = stop(command, tmp_path, flows_environment, signal.SIGINT, step + 20)
    assert list((tmp_path / "data/runs").iterdir()) == [run]
    assert f"resuming after step {step}" in output
    steps = sorted(int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.json"))
    assert steps[0] == step
    assert steps[-1] >= step + 20
    assert f"stopped by SIGINT after step {steps[-1]}; the same command resumes" in output
    assert read_json(run / "run.json")["status"] == "stopped"
    assert f"stopped by SIGINT after step {steps[-1]}" in newest_train_run(prefect_server)["state"]["message"]
    assert not (tmp_path / "data/models").exists()


def test_training_that_cannot_begin_is_one_line_and_a_failed_run(
    trained: Path, tmp_path: Path, run_flows: Run, prefect_server: str
) -> None:
    result = run_flows(tmp_path, "train", "--store", str(trained / STORE), "--network", "unet", "--width", "1024")
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "width 1024" in line
    assert " GB" in line
    assert (result.stdout + result.stderr).count("width 1024") == 1
    assert not [word for word in ("Traceback", "NoneType") if word in result.stdout + result.stderr]
    state = newest_train_run(prefect_server)["state"]
    assert state["type"] == "FAILED"
    assert "width 1024" in state["message"]
