"""Commands whose standard streams are closed, full or of few letters: what was asked for is done all the same."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocsep.cli.exits import exit_codes
from vocsep.cli.main import app

NAME = "日本語"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, place in enumerate(("true", "estimated")):
        (tmp_path / place).mkdir()
        for name in ("vocals", NAME):
            noise = np.random.default_rng(seed).uniform(-0.3, 0.3, (8000, 1))
            soundfile.write(tmp_path / place / f"{name}.wav", noise, 8000)
            seed += 2
    return tmp_path


def score(folder: Path, options: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """`vocsep score` in a shell, which opens and closes its streams."""
    command = f'"{sys.executable}" -m vocsep score true estimated -o scores.json {options}'
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": root, **variables}
    return subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>/dev/full"])
def test_closed_streams_and_full_ones_for_messages_stop_nothing(folder: Path, closed: str) -> None:
    done = score(folder, closed)
    assert done.returncode == 0
    assert done.stderr == ""
    assert NAME in (folder / "scores.json").read_text("utf-8")


def test_output_that_cannot_be_written_is_one_line_and_costs_no_scores(folder: Path) -> None:
    done = score(folder, ">/dev/full")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: standard output")
    assert "No space left on device" in line
    assert (folder / "scores.json").exists()


def test_standard_output_is_no_file_to_be_replaced(folder: Path) -> None:
    done = score(folder, "-o /dev/stdout > printed")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /dev/stdout: ")
    assert Path("/dev/stdout").is_symlink()
    assert (folder / "printed").read_bytes() == b""


def test_letters_that_the_output_does_not_know_are_escaped(folder: Path) -> None:
    done = score(folder, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert NAME.encode("unicode_escape").decode() in done.stdout


@pytest.mark.parametrize("options", [["-o", "FOLDER"], ["-o", "PIPE"], ["--window", "inf"], ["--hop", "inf"]])
def test_wrong_options_of_score_are_one_line_before_any_work(
    folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder / "pipe")
    options = [option.replace("FOLDER", str(folder)).replace("PIPE", str(folder / "pipe")) for option in options]
    with pytest.raises(SystemExit) as end, exit_codes():
        app(["score", str(folder / "true"), str(folder / "estimated"), *options])
    assert end.value.code == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert options[-1] in line
    assert printed.out == ""
    assert (folder / "pipe").is_fifo()
