import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.checkpoints import CheckpointFolder
from storage.errors import UserError
from tests.forked import forked
from tests.helpers import flip

Arrays = dict[str, NDArray[Any]]

STATE = {"best": 4.25, "history": [{"step": 3, "sdr": -1.5}], "note": "Zoë", "nothing": None, "seconds": 1e-7}


def some_arrays(seed: int, size: int = 12) -> Arrays:
    values = np.random.default_rng(seed).normal(size=(size, 2))
    return {
        "network/weight": values.astype(np.float32),
        "optimizer/0/step": np.array(seed, dtype=np.float32),
        "batches": np.array([seed, 2**62], dtype=np.int64),
        "half": values[:3].astype(np.float16),
        "transposed": values[:4].T,
        "empty": np.zeros((0, 3), dtype=np.float32),
    }


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Checkpoints of the steps 5 and 10."""
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(5, some_arrays(5), {**STATE, "of": 5})
    folder.save(10, some_arrays(10), {**STATE, "of": 10})
    return folder


# Writing and reading


def test_checkpoint_comes_back_with_the_bits_types_and_shapes_that_were_saved(folder: CheckpointFolder) -> None:
    checkpoint = folder.load(10)
    assert checkpoint.step == 10
    assert checkpoint.state == {**STATE, "of": 10}
    assert_same(checkpoint.arrays, some_arrays(10))


def test_newest_is_that_of_the_highest_step_whatever_the_number_of_digits(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (99_999_998, 123_456_789):
        folder.save(step, some_arrays(1), {})
    assert folder.steps() == [99_999_998, 123_456_789]
    newest, problems = folder.newest()
    assert newest is not None
    assert newest.step == 123_456_789
    assert problems == []


def test_folder_that_is_empty_or_not_there_has_no_checkpoint(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        assert CheckpointFolder(path).steps() == []
        assert CheckpointFolder(path).newest() == (None, [])
    assert not (tmp_path / "gone").exists()
    with pytest.raises(UserError, match="step-00000003"):
        CheckpointFolder(tmp_path).load(3)


def test_two_newest_are_kept_and_older_ones_and_strays_go(folder: CheckpointFolder) -> None:
    (folder.path / "notes.txt").write_text("mine")
    killed = (".step-00000007.safetensors.0a1b2c3d", ".tmp8ErDJx", ".step-00000007.json.0a1b2c3d")
    for stray in (*killed, "step-00000007.safetensors"):
        (folder.path / stray).write_bytes(b"left by a killed process")
    folder.save(15, some_arrays(15), {})
    assert folder.steps() == [10, 15]
    expected = [f"step-000000{step}.{suffix}" for step in (10, 15) for suffix in ("json", "safetensors")]
    assert names(folder) == sorted(["notes.txt", *expected])
    assert_same(folder.load(10).arrays, some_arrays(10))


def test_saving_a_step_again_replaces_it(folder: CheckpointFolder) -> None:
    folder.save(10, some_arrays(77), {"second": True})
    assert folder.steps() == [5, 10]
    assert folder.load(10).state == {"second": True}
    assert_same(folder.load(10).arrays, some_arrays(77))


def test_state_that_is_no_json_leaves_the_checkpoints_before_it(folder: CheckpointFolder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        folder.save(15, some_arrays(15), {"loss": float("nan")})
    newest, problems = folder.newest()
    assert newest is not None
    assert (newest.step, problems) == (10, [])


# Damage


def edit_state(path: Path) -> None:
    content = json.loads(path.read_text())
    content["state"]["best"] = 99.0
    path.write_text(json.dumps(content, indent=1))


def other_arrays(path: Path) -> None:
    """Arrays of another checkpoint, of the same size."""
    shutil.copyfile(path.with_name("step-00000005.safetensors"), path)


DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "flipped bit in the values": ("safetensors", lambda path: flip(path, -1)),
    "flipped bit in the names": ("safetensors", lambda path: flip(path, 12)),
    "arrays cut short": ("safetensors", lambda path: os.truncate(path, path.stat().st_size - 1)),
    "arrays grown": ("safetensors", lambda path: path.write_bytes(path.read_bytes() + b"\0")),
    "arrays emptied": ("safetensors", lambda path: os.truncate(path, 0)),
    "arrays gone": ("safetensors", lambda path: path.unlink()),
    "arrays of another step": ("safetensors", other_arrays),
    "description cut short": ("json", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "description emptied": ("json", lambda path: os.truncate(path, 0)),
    "description edited": ("json", edit_state),
    "description without its digest": ("json", lambda path: path.write_text('{"step": 10}')),
    "description of another kind": ("json", lambda path: path.write_text("[10]")),
    "description not text": ("json", lambda path: path.write_bytes(b"\xff\xfe")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_taken(folder: CheckpointFolder, kind: str) -> None:
    suffix, damage = DAMAGE[kind]
    damage(folder.path / f"step-00000010.{suffix}")
    newest, problems = folder.newest()
    assert newest is not None
    assert newest.step == 5
    assert newest.state == {**STATE, "of": 5}
    assert_same(newest.arrays, some_arrays(5))
    (problem,) = problems
    assert str(folder.path / "step-00000010") in problem
    assert "\n" not in problem
    with pytest.raises(UserError, match="damaged"):
        folder.load(10)


def test_every_flipped_byte_of_both_files_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    arrays = {"weight": np.arange(4, dtype=np.float32)}
    folder.save(1, arrays, {"best": 1.5, "seen": [1, 2]})
    for name, is_blank_free in (("step-00000001.safetensors", True), ("step-00000001.json", False)):
        path = tmp_path / name
        whole = path.read_bytes()
        for position in range(len(whole)):
            flip(path, position)
            try:
                checkpoint = folder.load(1)
            except UserError:
                pass
            else:
                # A blank between two words may become another one.
                assert not is_blank_free, position
                assert_same(checkpoint.arrays, arrays)
                assert checkpoint.state == {"best": 1.5, "seen": [1, 2]}
            path.write_bytes(whole)
    assert folder.load(1).step == 1


def test_when_all_are_damaged_there_is_none_and_each_is_named_newest_first(folder: CheckpointFolder) -> None:
    flip(folder.path / "step-00000010.safetensors", -1)
    os.truncate(folder.path / "step-00000005.json", 3)
    newest, problems = folder.newest()
    assert newest is None
    assert ["step-00000010" in problems[0], "step-00000005" in problems[1], len(problems)] == [True, True, 2]


# Ends in the middle of writing


def save_forever(path: Path, first: int, pipe: Connection) -> None:
    """Save checkpoints of 16 MB without a pause, and tell of each one that is saved."""
    folder = CheckpointFolder(path)
    step = first
    while True:
        folder.save(step, {"values": np.full(2_000_000, step, dtype=np.float64)}, {"of": step})
        pipe.send(step)
        step += 1


def test_kill_at_any_moment_of_writing_leaves_the_last_checkpoint_that_was_saved(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    random.seed(0)
    saved, interrupted = 0, 0
    for _ in range(12):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = forked(save_forever, tmp_path, saved + 1, theirs)
        process.start()
        theirs.close()
        assert ours.poll(60)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        try:
            while True:
                saved = ours.recv()
        except EOFError:
            pass
        newest, problems = folder.newest()
        assert problems == []
        assert newest is not None
        # One that was whole when the process died may not have been told of any more.
        assert newest.step in (saved, saved + 1)
        assert newest.state == {"of": newest.step}
        assert (newest.arrays["values"] == newest.step).all()
        saved = newest.step
        described = {f"step-{step:08d}" for step in folder.steps()}
        interrupted += any(path.name.split(".")[0] not in described for path in tmp_path.iterdir())
    assert interrupted > 0, "no kill came in the middle of writing"
    folder.save(saved + 1, some_arrays(1), {})
    assert folder.steps() == [saved, saved + 1]
    assert len(names(folder)) == 4


def save_under_limit(path: Path, limit: int, pipe: Connection) -> None:
    """Save where no file may grow beyond `limit` bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        CheckpointFolder(path).save(11, {"values": np.zeros(100_000)}, {})
    except Exception as error:
        pipe.send(type(error).__name__)
    else:
        pipe.send("saved")


def test_write_that_fails_is_an_error_and_leaves_what_was_there(folder: CheckpointFolder) -> None:
    before = names(folder)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = forked(save_under_limit, folder.path, 50_000, theirs)
    process.start()
    process.join(600)
    assert process.exitcode == 0
    assert ours.recv() in ("OSError", "SafetensorError")
    assert names(folder) == before
    newest, problems = folder.newest()
    assert newest is not None
    assert (newest.step, problems) == (10, [])
