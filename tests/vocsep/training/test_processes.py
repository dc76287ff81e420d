"""Training processes that are killed, stopped by signals, and that train together."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pytest
import torch

import vocsep.cli.main
from storage.checkpoints import CheckpointFolder
from storage.files import read_json
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.helpers import beyond_loopback, listening
from tests.vocsep.training.training_runs import (
    Arrays,
    Child,
    are_equal,
    checkpoint_of,
    command_in_child,
    fit_in_child,
    fit_in_children,
    small_store,
    status_of,
    train,
    weights_of,
)
from vocsep.training.log import read_metrics
from vocsep.training.processes import Place, first_host, place
from vocsep.training.run_folder import CHECKPOINTS
from vocsep.training.validation import Validation

EVERY_STEP = 1e-6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    splits = ("train", "train", "train", "valid")
    return small_store(tmp_path_factory.mktemp("processes") / "store.zarr", splits)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Children have one thread, and other numbers of threads give other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def newest_step(run: Path) -> int:
    """Of the newest checkpoint, without reading it: it may be gone in the next moment."""
    return max(CheckpointFolder(run / CHECKPOINTS).steps(), default=0)


def last_row(run: Path) -> int:
    return max((int(row["step"]) for row in read_metrics(run)), default=0)


def model_of(folder: Path, version: str = "1") -> dict[str, Any]:
    return ModelRegistry(folder / "models").open(version).load_weights()


# kill -9


def test_run_killed_at_random_moments_goes_on_from_its_last_checkpoint_and_ends_as_the_undisturbed_one(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 30, "validations": 3, "checkpoint_seconds": EVERY_STEP}
    whole = train(store, tmp_path / "whole", **settings)
    random.seed(1)
    folder, reached = tmp_path / "killed", 0
    for _ in range(3):
        child = fit_in_child(store, folder, "auto", **settings)
        aim = reached + random.randint(2, 8)
        child.wait_until(lambda: child.runs and newest_step(child.runs[0]) >= aim, f"step {aim}")  # noqa: B023
        time.sleep(random.uniform(0, 0.03))
        child.kill()
        (run,) = child.runs
        if reached:
            assert f"resuming after step {reached} of {run}" in child.messages
        assert status_of(run) == "running"
        checkpoint = checkpoint_of(run)
        assert checkpoint.step >= aim
        # A checkpoint after every step: at most the last step is lost.
        assert checkpoint.step >= last_row(run) - 1
        reached = checkpoint.step
    last = fit_in_child(store, folder, "auto", **settings)
    assert last.wait() == 0, last.messages
    assert f"resuming after step {reached} of {run}" in last.messages
    assert last.runs == [run]
    assert are_equal(model_of(folder), weights_of(whole))
    assert are_equal(checkpoint_of(run).arrays, checkpoint_of(whole.run_folder).arrays)
    assert read_json(run / "run.json")["history"] == read_json(Path(whole.run_folder) / "run.json")["history"]


# Signals


def arguments(store: SpectrogramStore, steps: int, *more: str) -> list[str]:
    text = f"train --store {store.path} --steps {steps} --batch-size 4 --width 2 --validations 1 --device cpu"
    return [*text.split(), "--precision", "32", *more]


def test_sigterm_and_ctrl_c_save_the_run_and_the_same_command_goes_on_to_the_same_end(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    line = arguments(store, 60)
    whole = command_in_child(tmp_path / "whole", *line)
    folder = tmp_path / "stopped"
    folder.mkdir()
    runs = folder / "data" / "runs"

    # The command itself, as a user starts it.
    process = subprocess.Popen(
        [sys.executable, "-m", "vocsep", *line],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 600
    while not any(last_row(run) >= 10 for run in runs.glob("*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, output
    (run,) = runs.iterdir()
    stopped = checkpoint_of(run).step
    assert f"stopped by SIGTERM after step {stopped}; the same command resumes" in output
    assert "Traceback" not in output
    assert status_of(run) == "stopped"
    assert last_row(run) <= stopped < 60

    child = command_in_child(folder, *line)
    child.wait_until(lambda: last_row(run) >= stopped + 10, "ten steps more")
    child.send(signal.SIGINT)
    assert child.wait() == 128 + signal.SIGINT, child.messages
    assert f"resuming after step {stopped}" in child.messages
    stopped = checkpoint_of(run).step
    assert f"stopped by SIGINT after step {stopped}; the same command resumes" in child.messages
    assert "Traceback" not in child.messages
    assert status_of(run) == "stopped"

    child = command_in_child(folder, *line)
    assert child.wait() == 0, child.messages
    assert f"resuming after step {stopped}" in child.messages
    assert "validation SDR" in child.messages
    assert list(runs.iterdir()) == [run]
    assert status_of(run) == "finished"
    assert whole.wait() == 0, whole.messages
    assert are_equal(model_of(folder / "data"), model_of(tmp_path / "whole" / "data"))


def command_with_slow_validation(folder: Path, line: list[str]) -> None:
    """Run `vocsep`; a validation takes an hour, and says when it begins."""

    def validate(store: SpectrogramStore, network: Any, keep_songs: int = 0, threads: int = 1) -> Validation:
        if network is not None:
            print("validating", flush=True)
            time.sleep(3600)
        return Validation(1.0, {"song": 1.0})

    mock.patch("vocsep.training.loop.validate", validate).start()
    os.chdir(folder)
    sys.argv = ["vocsep", *line]
    vocsep.cli.main.main()


def test_second_ctrl_c_ends_at_once(store: SpectrogramStore, tmp_path: Path) -> None:
    child = Child(tmp_path, command_with_slow_validation, tmp_path, arguments(store, 3))
    child.wait_until(lambda: "validating" in child.messages, "the validation")
    child.send(signal.SIGINT)
    time.sleep(1)
    assert child.is_alive, "the first one lets the step end"
    child.send(signal.SIGINT)
    # Before the validation could end.
    code = child.wait(timeout=600)
    assert code != 0
    assert "Traceback" not in child.messages
    (run,) = (tmp_path / "data" / "runs").iterdir()
    assert status_of(run) == "running"
    assert not (tmp_path / "data" / "models").exists()


# Several processes


def assert_near(first: Arrays, second: Arrays) -> None:
    """Weights of two runs are the same but for rounding, which grows tenfold with every few steps."""
    assert first.keys() == second.keys()
    names = [name for name in first if name.split("/")[0] in ("network", "average") and name.endswith("weight")]
    assert len(names) >= 40
    distances = np.concatenate([np.abs(first[name] - second[name]).ravel() for name in names])
    # Adam makes whole steps of gradients that are nothing but rounding: of a few weights.
    assert distances.mean() < 1e-4
    assert np.median(distances) < 2e-5


def test_two_processes_train_as_one_does(store: SpectrogramStore, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "steps": 4,
        "schedule": "constant",
        "batch_size": 16,
        "steps_per_row": 1,
        "targets": ("vocals", "accompaniment"),
    }
    one = fit_in_child(store, tmp_path / "one", "never", **settings)
    two = fit_in_children(2, store, tmp_path / "two", "never", **settings)
    assert [child.wait() for child in (one, *two)] == [0, 0, 0], [child.messages for child in (one, *two)]
    # One writer of files, one model.
    assert len(two[0].runs) == 1
    assert ModelRegistry(tmp_path / "two" / "models").versions() == [1]
    assert "training on" in two[0].messages
    assert "training on" not in two[1].messages

    rows = [[row for row in read_metrics(child.runs[0]) if row["train/loss"]] for child in (one, two[0])]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == ["1", "2", "3", "4"]
    for column, tolerance in (("train/learning_rate", 0), ("train/loss", 1e-4), ("train/gradient_norm", 1e-3)):
        values = [[float(row[column]) for row in each] for each in rows]
        np.testing.assert_allclose(values[1], values[0], rtol=tolerance, err_msg=column)
    assert_near(*(checkpoint_of(child.runs[0]).arrays for child in (one, two[0])))


@pytest.mark.skipif(sys.platform != "linux", reason="the names of threads")
@pytest.mark.parametrize("loss_is_finite", [True, False])
def test_processes_that_trained_together_end_their_threads_before_they_exit(
    store: SpectrogramStore, tmp_path: Path, loss_is_finite: bool
) -> None:
    # One that still runs while Python shuts down aborts the process, now and then.
    rate = 2e-3 if loss_is_finite else 1e30
    children = fit_in_children(2, store, tmp_path, "never", steps=6, warmup=0, learning_rate=rate)
    assert [child.wait() for child in children] == [0 if loss_is_finite else 2] * 2, [c.messages for c in children]
    for child in children:
        assert re.findall(r"gloo threads: ([1-9]), then 0", child.messages), child.messages


def test_two_processes_reduce_the_learning_rate_and_end_early_together(store: SpectrogramStore, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "steps": 40,
        "validations": 20,
        "schedule": "plateau",
        "warmup": 0,
        "patience": 6,
        "scores": [0.0, 5.0, *[1.0] * 20],
        "batch_size": 16,
        "steps_per_row": 1,
    }
    one = fit_in_child(store, tmp_path / "one", "never", **settings)
    two = fit_in_children(2, store, tmp_path / "two", "never", **settings)
    assert [child.wait() for child in (one, *two)] == [0, 0, 0], [child.messages for child in (one, *two)]
    rates = [
        [float(row["train/learning_rate"]) for row in read_metrics(child.runs[0]) if row["train/loss"]]
        for child in (one, two[0])
    ]
    assert rates[0][0] == 2e-3
    assert min(rates[0]) <= 5e-4
    assert rates[1] == rates[0]
    ends = [checkpoint_of(child.runs[0]) for child in (one, two[0])]
    assert ends[0].step == ends[1].step < 20
    assert_near(ends[0].arrays, ends[1].arrays)


def test_two_processes_of_which_one_is_told_stop_together_and_go_on_to_the_same_end(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 30, "batch_size": 2}
    whole = fit_in_children(2, store, tmp_path / "whole", "never", **settings)
    assert [child.wait() for child in whole] == [0, 0], [child.messages for child in whole]
    folder = tmp_path / "stopped"
    children = fit_in_children(2, store, folder, "auto", **settings)
    children[0].wait_until(lambda: children[0].runs and last_row(children[0].runs[0]) >= 10, "ten steps")
    children[1].send(signal.SIGTERM)
    assert [child.wait() for child in children] == [143, 143], [child.messages for child in children]
    assert not any("Traceback" in child.messages for child in children)
    (run,) = children[0].runs
    assert status_of(run) == "stopped"
    stopped = checkpoint_of(run).step
    children = fit_in_children(2, store, folder, "auto", **settings)
    assert [child.wait() for child in children] == [0, 0], [child.messages for child in children]
    assert f"resuming after step {stopped}" in children[0].messages
    assert children[0].runs == [run]
    assert ModelRegistry(folder / "models").versions() == [1]
    assert are_equal(model_of(folder), model_of(tmp_path / "whole"))


def test_run_of_one_process_goes_on_with_two_that_srun_started(store: SpectrogramStore, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 12, "validations": 2, "schedule": "constant", "warmup": 0, "batch_size": 16}
    whole = fit_in_child(store, tmp_path / "whole", "never", **settings)
    half = train(store, tmp_path / "parts", **(settings | {"steps": 6, "validations": 1}))
    children = fit_in_children(2, store, tmp_path / "parts", half.run_folder, **settings)
    assert [child.wait() for child in (whole, *children)] == [0, 0, 0], [child.messages for child in children]
    assert checkpoint_of(half.run_folder).step == 12
    assert_near(checkpoint_of(whole.runs[0]).arrays, checkpoint_of(half.run_folder).arrays)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node7", "node7"),
        ("alpha,beta", "alpha"),
        ("gpu[5-9]", "gpu5"),
        ("gpu[003,007-009],login1", "gpu003"),
        ("rack2-n[11]", "rack2-n11"),
        ("login,gpu[1-2]", "login"),
    ],
)
def test_processes_of_slurm_meet_at_the_first_host_of_its_list(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_script_of_slurm_that_srun_did_not_start_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert place() == Place()


# Started by torchrun


def test_devices_2_starts_two_processes_that_sigterm_ends_and_plain_torchrun_goes_on(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    line = arguments(store, 50)
    child = command_in_child(tmp_path, *line, "--devices", "2")
    runs = tmp_path / "data" / "runs"
    child.wait_until(lambda: any(last_row(run) >= 10 for run in runs.glob("*")), "ten steps")
    started = psutil.Process(child.pid).children(recursive=True)
    assert len(started) >= 3, started
    assert listening(started)
    assert beyond_loopback(started) == {}
    child.send(signal.SIGTERM)
    assert child.wait() == 128 + signal.SIGTERM, child.messages
    _, alive = psutil.wait_procs(started, timeout=600)
    assert not alive
    (run,) = runs.iterdir()
    assert status_of(run) == "stopped"
    stopped = checkpoint_of(run).step
    assert 10 <= stopped < 50

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, "-m", "vocsep", *line],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert output.count(f"resuming after step {stopped}") == 1
    assert len(re.findall(r"train: 50 steps in", output)) == 1
    assert list(runs.iterdir()) == [run]
    assert status_of(run) == "finished"
    assert checkpoint_of(run).step == 50
    assert ModelRegistry(tmp_path / "data" / "models").versions() == [1]
