"""A run that ended early resumes, to the very bits that it would have reached undisturbed."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storage.errors import UserError
from storage.files import read_json, write_json
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.helpers import one_line
from tests.vocsep.training.training_runs import (
    Arrays,
    are_equal,
    checkpoint_of,
    fit_plainly,
    quick,
    small_store,
    status_of,
    train,
    weights_of,
)
from vocsep.training.description import training_digest
from vocsep.training.fit import TrainResult
from vocsep.training.run_folder import open_run
from vocsep.training.stopping import TrainingStopped

CAPABILITIES = torch.cpu.get_capabilities()
HAS_BF16 = bool(CAPABILITIES.get("avx512_bf16") or CAPABILITIES.get("amx_bf16"))

# With these, resuming with a larger budget than before changes nothing in the steps that were done.
CONSTANT: dict[str, Any] = {"schedule": "constant", "warmup": 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    splits = ("train", "train", "train", "valid", "valid")
    return small_store(tmp_path_factory.mktemp("resume") / "store.zarr", splits, channels=2)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stopped_at(step: int, number: int, store: SpectrogramStore, folder: Path, **changed: Any) -> Path:
    """Folder of a run that gets a signal when it has done `step` steps, and stops after the next one."""
    told = 0

    def on_progress(used: float, total: float) -> None:
        nonlocal told
        told += 1
        if told == step:
            os.kill(os.getpid(), number)

    with pytest.raises(TrainingStopped) as stopped:
        fit_plainly(quick(**changed), store, folder, "never", on_progress)
    assert stopped.value.signal == number
    (run,) = (folder / "runs").iterdir()
    assert str(run) in str(stopped.value)
    return run


def without_clock(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in ("seconds", "validation_seconds")}


def assert_same_end(first: TrainResult, second: TrainResult) -> Arrays:
    """Two runs hold the same at their ends, to the bit, and left the same model; returns the arrays."""
    one, other = checkpoint_of(first.run_folder), checkpoint_of(second.run_folder)
    assert first.steps == second.steps == one.step == other.step
    assert are_equal(one.arrays, other.arrays)
    assert without_clock(one.state) == without_clock(other.state)
    assert first.valid_sdr_db == second.valid_sdr_db
    assert are_equal(weights_of(first), weights_of(second))
    return one.arrays


def test_steps_and_as_many_steps_again_equal_twice_the_steps_in_all_that_a_run_holds(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    whole = train(store, tmp_path / "whole", steps=24, validations=2, **CONSTANT)
    half = train(store, tmp_path / "parts", steps=12, validations=1, **CONSTANT)
    rest = train(store, tmp_path / "parts", resume=half.run_folder, steps=24, validations=2, **CONSTANT)
    assert rest.run_folder == half.run_folder
    arrays = assert_same_end(whole, rest)
    kinds = {name.split("/")[0] for name in arrays}
    assert kinds == {"network", "average", "best", "optimizer"}
    moments = {name.split("/")[2] for name in arrays if name.startswith("optimizer/")}
    assert moments == {"momentum", "step", "mean", "square"}
    assert not are_equal(weights_of(half), weights_of(rest))
    assert [entry["step"] for entry in checkpoint_of(rest.run_folder).state["history"]] == [12, 24]


def test_run_that_was_killed_after_it_had_added_its_model_does_not_add_it_again(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    first = train(store, tmp_path, steps=4, validations=1)
    description = Path(first.run_folder) / "run.json"
    write_json(description, read_json(description) | {"status": "running"})
    again = train(store, tmp_path, resume="auto", steps=4, validations=1)
    assert (again.run_folder, again.version, again.steps) == (first.run_folder, first.version, 4)
    assert status_of(Path(again.run_folder)) == "finished"
    assert ModelRegistry(tmp_path / "models").versions() == [first.version]


def test_2_epochs_and_2_more_equal_4(store: SpectrogramStore, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": None, "batch_size": 3, **CONSTANT}
    whole = train(store, tmp_path / "whole", epochs=4, validations=2, **settings)
    half = train(store, tmp_path / "parts", epochs=2, validations=1, **settings)
    rest = train(store, tmp_path / "parts", resume=half.run_folder, epochs=4, validations=2, **settings)
    # Three stereo songs of 251 frames: 11 patches of 128.
    assert (half.steps, rest.steps) == (8, 15)
    assert half.steps * 2 != whole.steps
    assert_same_end(whole, rest)


VARIANTS: dict[str, dict[str, Any]] = {
    "host": {"data": "host"},
    "stream": {"data": "stream"},
    "stereo": {"channels": 2},
    "two targets": {"targets": ("vocals", "accompaniment"), "augmentation": {"remix": 0.5}},
    "adam": {"optimizer": "adam"},
    "adamw and clipped": {"optimizer": "adamw", "gradient_clip": 0.01},
    "without an average": {"ema": 0},
    "plateau": {"network": "unet", "schedule": "plateau", "learning_rate": 0.05, "validations": 7, "steps": 14},
    "bf16": {"precision": "bf16"},
    "steps before minutes": {"max_minutes": 600},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_run_that_sigterm_stopped_ends_as_the_undisturbed_one(
    store: SpectrogramStore, tmp_path: Path, name: str
) -> None:
    if name == "bf16" and not HAS_BF16:
        pytest.skip("this CPU has no bfloat16")
    settings: dict[str, Any] = {"steps": 12, **VARIANTS[name]}
    whole = train(store, tmp_path / "whole", **settings)
    run = stopped_at(8, signal.SIGTERM, store, tmp_path / "parts", **settings)
    assert status_of(run) == "stopped"
    assert checkpoint_of(run).step == 9
    rest = train(store, tmp_path / "parts", resume="auto", **settings)
    assert rest.run_folder == str(run)
    assert_same_end(whole, rest)
    state = checkpoint_of(run).state
    if name == "plateau":
        assert state["schedule"]["reduction"] < 1


def test_streamed_patches_train_to_the_same_bits_as_those_in_memory(store: SpectrogramStore, tmp_path: Path) -> None:
    results = [train(store, tmp_path / data, steps=12, data=data) for data in ("host", "stream")]
    assert are_equal(weights_of(results[0]), weights_of(results[1]))


def test_run_may_go_on_from_another_tier_than_it_began_with(store: SpectrogramStore, tmp_path: Path) -> None:
    whole = train(store, tmp_path / "whole", steps=12, data="host")
    run = stopped_at(5, signal.SIGTERM, store, tmp_path / "parts", steps=12, data="host")
    rest = train(store, tmp_path / "parts", resume=str(run), steps=12, data="stream")
    assert_same_end(whole, rest)


@pytest.mark.parametrize("step", [6, 12], ids=["in the middle", "at the end"])
def test_signal_in_the_step_of_a_validation_costs_nothing(store: SpectrogramStore, tmp_path: Path, step: int) -> None:
    whole = train(store, tmp_path / "whole", steps=12, validations=2)
    run = stopped_at(step - 1, signal.SIGTERM, store, tmp_path / "parts", steps=12, validations=2)
    assert checkpoint_of(run).step == step
    rest = train(store, tmp_path / "parts", resume="auto", steps=12, validations=2)
    assert (rest.steps, rest.valid_sdr_db) == (whole.steps, whole.valid_sdr_db)
    assert are_equal(weights_of(rest), weights_of(whole))
    histories = [read_json(Path(result.run_folder) / "run.json")["history"] for result in (whole, rest)]
    assert histories[0] == histories[1]


def test_run_whose_model_could_not_be_registered_does_so_when_it_goes_on(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    whole = train(store, tmp_path / "whole")
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "models").write_text("a file where the models shall be")
    with pytest.raises(UserError, match="models"):
        train(store, folder)
    (folder / "models").unlink()
    rest = train(store, folder, resume="auto")
    assert len(list((folder / "runs").iterdir())) == 1
    assert_same_end(whole, rest)


def test_run_can_go_on_in_the_same_process_while_the_message_of_its_end_is_held(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    told: list[float] = []

    def on_progress(used: float, total: float) -> None:
        told.append(used)
        if len(told) == 3:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left") as held:
        fit_plainly(quick(checkpoint_seconds=1e-6), store, tmp_path, "never", on_progress)
    (run,) = (tmp_path / "runs").iterdir()
    result = train(store, tmp_path, resume=str(run), checkpoint_seconds=1e-6)
    assert result.steps == 6
    assert held.value is not None


def test_signals_mean_after_a_run_what_they_meant_before(store: SpectrogramStore, tmp_path: Path) -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError("not during the test")

    before = {number: signal.signal(number, mine) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        train(store, tmp_path)
        assert all(signal.getsignal(number) is mine for number in before)
        stopped_at(2, signal.SIGINT, store, tmp_path / "stopped")
        assert all(signal.getsignal(number) is mine for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_best_and_history_of_a_stopped_run_come_back(store: SpectrogramStore, tmp_path: Path) -> None:
    run = stopped_at(6, signal.SIGTERM, store, tmp_path, steps=12, validations=4)
    before = checkpoint_of(run).state
    assert [entry["step"] for entry in before["history"]] == [3, 6]
    assert before["best_sdr_db"] == max(entry["valid_sdr_db"] for entry in before["history"])
    assert before["best_mean_sdr_db"] == pytest.approx(before["best_sdr_db"])
    result = train(store, tmp_path, resume="auto", steps=12, validations=4)
    history = read_json(run / "run.json")["history"]
    assert [entry["step"] for entry in history] == [3, 6, 9, 12]
    assert history[:2] == before["history"]
    assert result.valid_sdr_db == max(entry["valid_sdr_db"] for entry in history)


@pytest.mark.parametrize("state", [{}, {"history": None}])
def test_checkpoint_that_is_not_of_this_network_is_one_line(
    state: dict[str, Any], store: SpectrogramStore, tmp_path: Path
) -> None:
    run = open_run(tmp_path / "runs", "never", quick().identity(), training_digest(store))
    run.checkpoints.save(1, {"network/elsewhere": np.zeros(3, np.float32)}, state)
    run.write("stopped")
    run.close()
    for resume in ("auto", str(run.path)):
        one_line(lambda resume=resume: train(store, tmp_path, resume=resume), run.path, "--resume never")  # type: ignore[misc]
