import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.checkpoints import CheckpointFolder
from storage.errors import UserError
from storage.files import read_json
from storage.registry import ModelRegistry
from tests.vocsep.training.training_runs import Child
from vocsep.training.run_folder import (
    CHECKPOINTS,
    FAILED,
    RunFolder,
    Status,
    finished_version,
    open_run,
    with_settings_of,
)

CONFIG = {"width": 2, "augmentation": {"remix": 0.5, "pitch": 0.5}, "fine_tune": None}
DATA = "d" * 64


def opened(runs: Path, resume: str = "auto", config: dict[str, Any] = CONFIG, data: str = DATA) -> RunFolder:
    return open_run(runs, resume, config, data)


def leave(
    runs: Path, name: str, status: Status, *, config: dict[str, Any] = CONFIG, steps: tuple[int, ...] = (5,)
) -> Path:
    """A run's folder as a process that has ended leaves it."""
    run = opened(runs, "never", config)
    run.write(status)
    for step in steps:
        run.checkpoints.save(step, {"weight": np.full(3, step, dtype=np.float32)}, {"of": step})
    run.close()
    return run.path.rename(runs / name)


def damage(run: Path, step: int) -> None:
    path = run / CHECKPOINTS / f"step-{step:08d}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def flat(run: RunFolder) -> tuple[Path, int | None]:
    return run.path, run.checkpoint.step if run.checkpoint else None


# A new run


def test_new_run_has_a_folder_of_its_own_and_says_what_it_is(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "runs", "never"), opened(tmp_path / "runs", "never")
    assert first.path != second.path
    assert first.path.parent == second.path.parent == tmp_path / "runs"
    assert first.checkpoint is None
    first.write("running", settings={"steps": 3})
    content = read_json(first.path / "run.json")
    assert content.pop("created")
    assert content == {"config": CONFIG, "data_digest": DATA, "settings": {"steps": 3}, "status": "running"}
    first.write("finished", model_version=1)
    assert read_json(first.path / "run.json")["status"] == "finished"
    assert read_json(first.path / "run.json")["settings"] == {"steps": 3}


@pytest.mark.parametrize("status", ["running", "stopped", "failed", "finished"])
def test_never_begins_anew_whatever_is_there(tmp_path: Path, status: Status) -> None:
    old = leave(tmp_path, "20200101-000000", status)
    assert flat(opened(tmp_path, "never"))[1] is None
    assert opened(tmp_path, "never").path != old


# auto


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_auto_goes_on_with_a_run_that_was_killed_or_stopped(tmp_path: Path, status: Status) -> None:
    old = leave(tmp_path, "20200101-000000", status, steps=(5, 10))
    run = opened(tmp_path)
    assert flat(run) == (old, 10)
    assert run.checkpoint is not None
    assert run.checkpoint.state == {"of": 10}
    assert run.description["config"] == CONFIG


@pytest.mark.parametrize("status", ["failed", "finished"])
def test_auto_leaves_runs_that_failed_or_finished(tmp_path: Path, status: Status) -> None:
    old = leave(tmp_path, "20200101-000000", status)
    assert opened(tmp_path).path != old


def test_auto_takes_the_newest_of_several(tmp_path: Path) -> None:
    leave(tmp_path, "20200101-000000", "running", steps=(50,))
    newest = leave(tmp_path, "20200102-000000", "stopped")
    leave(tmp_path, "20200103-000000", "finished")
    leave(tmp_path, "20200104-000000", "failed")
    assert flat(opened(tmp_path)) == (newest, 5)


def test_auto_passes_over_runs_of_other_settings_other_songs_and_without_checkpoints(tmp_path: Path) -> None:
    mine = leave(tmp_path, "20200101-000000", "stopped")
    leave(tmp_path, "20200102-000000", "stopped", config=CONFIG | {"width": 4})
    leave(tmp_path, "20200103-000000", "running", steps=())
    other_songs = leave(tmp_path, "20200104-000000", "running")
    content = read_json(other_songs / "run.json") | {"data_digest": "e" * 64}
    (other_songs / "run.json").write_text(json.dumps(content))
    assert flat(opened(tmp_path)) == (mine, 5)


def test_auto_begins_anew_where_only_other_things_are(tmp_path: Path) -> None:
    leave(tmp_path, "20200101-000000", "stopped", config=CONFIG | {"width": 4})
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for name, text in (("a", ""), ("b", "[]"), ("c", "{"), ("d", "{}"), ("e", '{"status": "running"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    others = {path: set(path.iterdir()) for path in tmp_path.iterdir() if path.is_dir()}
    run = opened(tmp_path)
    assert run.path not in others
    assert run.checkpoint is None
    assert all(set(path.iterdir()) | {path / ".lock"} == files | {path / ".lock"} for path, files in others.items())


def hold(runs: Path, name: str) -> None:
    """Hold a run, say so, and stay."""
    run = opened(runs, str(runs / name))
    (runs / "held").write_text(str(run.path))
    threading.Event().wait()


def test_run_that_a_living_process_trains_is_left_to_it_until_it_dies(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    older = leave(runs, "20200101-000000", "stopped", steps=(3,))
    newer = leave(runs, "20200102-000000", "stopped")
    holder = Child(tmp_path, hold, runs, newer.name)
    holder.wait_until((runs / "held").exists, "the other process held the run")
    with pytest.raises(UserError, match="another process") as error:
        opened(runs, str(newer))
    assert str(newer) in str(error.value)
    run = opened(runs)
    assert flat(run) == (older, 3)
    run.close()
    holder.kill()
    assert flat(opened(runs)) == (newer, 5)


def test_run_that_was_closed_can_be_taken_again_in_the_same_process(tmp_path: Path) -> None:
    old = leave(tmp_path, "20200101-000000", "stopped")
    first = opened(tmp_path)
    assert opened(tmp_path).path != old
    first.close()
    assert opened(tmp_path, str(old)).path == old


# A named run


def test_named_run_goes_on_even_if_it_finished(tmp_path: Path) -> None:
    for status in ("running", "stopped", "finished"):
        old = leave(tmp_path, f"20200101-{status}", status)
        assert flat(opened(tmp_path / "elsewhere", str(old))) == (old, 5)
    assert not (tmp_path / "elsewhere").exists()


def test_named_run_of_other_settings_is_refused_with_all_differences(tmp_path: Path) -> None:
    old = leave(tmp_path, "20200101-000000", "stopped")
    changed = {"width": 4, "augmentation": {"remix": 0.25, "pitch": 0.5}, "fine_tune": "champion"}
    with pytest.raises(UserError) as error:
        opened(tmp_path, str(old), changed)
    line = str(error.value)
    assert "\n" not in line
    assert str(old) in line
    for part in ("width: 2 -> 4", "remix: 0.5 -> 0.25", "fine_tune: None -> 'champion'"):
        assert part in line
    assert "pitch" not in line
    assert "data" not in line


def test_named_run_of_other_songs_is_refused(tmp_path: Path) -> None:
    old = leave(tmp_path, "20200101-000000", "stopped")
    with pytest.raises(UserError, match="other training data") as error:
        opened(tmp_path, str(old), data="e" * 64)
    assert str(old) in str(error.value)


@pytest.mark.parametrize("kind", ["missing", "empty", "a file", "not JSON", "a list", "no settings", "a list of them"])
def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "20200101-000000"
    if kind == "a file":
        path.write_text("words")
    elif kind != "missing":
        path.mkdir()
    contents = {"not JSON": "{", "a list": "[]", "no settings": "{}", "a list of them": '{"config": []}'}
    if kind in contents:
        (path / "run.json").write_text(contents[kind])
    with pytest.raises(UserError) as error:
        opened(tmp_path, str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_named_run_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    old = leave(tmp_path, "20200101-000000", "running", steps=())
    with pytest.raises(UserError, match="no intact checkpoint") as error:
        opened(tmp_path, str(old))
    assert str(old) in str(error.value)


def test_finished_run_is_one_whose_model_is_there_and_whole(tmp_path: Path) -> None:
    registry, runs = ModelRegistry(tmp_path / "models"), tmp_path / "runs"
    assert finished_version(runs, registry) is None
    for number, version in enumerate((1, 2, 3, 99, "2", None, -1), start=1):
        run = opened(runs, "never")
        run.write("finished", model_version=version)
        run.close()
        run.path.rename(runs / f"2020010{number}-000000")
        if number <= 3:
            registry.add({"w": np.ones(3, np.float32)}, {"number": number})
    (runs / "20210101-000000").mkdir()
    (runs / "20210101-000000" / "run.json").write_text("{")
    assert finished_version(runs, registry) == 3
    (registry.path / "0003" / "model.safetensors").write_bytes(b"damaged")
    assert finished_version(runs, registry) == 2
    shutil.rmtree(registry.path)
    assert finished_version(runs, registry) is None


# Damaged checkpoints


@pytest.mark.parametrize("named", [True, False])
def test_damaged_newest_checkpoint_is_told_and_the_one_before_it_taken(
    tmp_path: Path, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    old = leave(tmp_path, "20200101-000000", "running", steps=(5, 10))
    damage(old, 10)
    run = opened(tmp_path, str(old) if named else "auto")
    assert flat(run) == (old, 5)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "step-00000010" in record.getMessage()
    assert str(old) in record.getMessage()


def test_when_all_checkpoints_are_damaged_a_named_run_is_refused_and_auto_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = leave(tmp_path, "20200101-000000", "running", steps=(5, 10))
    for step in (5, 10):
        damage(old, step)
    with pytest.raises(UserError, match="no intact checkpoint") as error:
        opened(tmp_path, str(old))
    assert "\n" not in str(error.value)
    caplog.clear()
    run = opened(tmp_path)
    assert run.path != old
    assert run.checkpoint is None
    assert ["step-00000010" in caplog.text, "step-00000005" in caplog.text] == [True, True]


def test_failed_step_lies_in_its_run_as_a_run_of_its_own(tmp_path: Path) -> None:
    old = leave(tmp_path, "20200101-000000", "failed")
    shutil.copytree(old / CHECKPOINTS, old / FAILED / CHECKPOINTS)
    shutil.copyfile(old / "run.json", old / FAILED / "run.json")
    assert flat(opened(tmp_path, str(old / FAILED))) == (old / FAILED, 5)
    assert CheckpointFolder(old / CHECKPOINTS).steps() == [5]


# Settings


def test_settings_of_a_named_run_are_its_own_but_for_those_that_are_given(tmp_path: Path) -> None:
    run = opened(tmp_path, "never")
    settings = {"network": "tfc-tdf", "steps": 3, "width": 2, "augmentation": {"remix": 0.5, "pitch": 0.1}}
    run.write("stopped", settings=settings)
    assert with_settings_of(str(run.path), {}) == settings
    given = {"steps": 9, "epochs": 1.5, "augmentation": {"pitch": 0.4}}
    expected = settings | given | {"augmentation": {"remix": 0.5, "pitch": 0.4}}
    assert with_settings_of(str(run.path), given) == expected
    for resume in ("auto", "never"):
        assert with_settings_of(resume, given) == given


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone"):
        with_settings_of(str(tmp_path / "gone"), {})


@pytest.mark.parametrize("content", ["{", '{"settings": [1]}'])
def test_settings_of_a_damaged_run_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError) as error:
        with_settings_of(str(tmp_path), {})
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
