"""What a command cannot read or write is one line, for every command."""

from pathlib import Path

import pytest

from vocsep.cli.exits import exit_codes
from vocsep.cli.main import app


@pytest.mark.parametrize(
    "command",
    [
        "models list --models FILE",
        "models history --models FILE",
        "models promote 1 --models FILE",
        "demo-data --train-songs 1 --test-songs 0 --seconds 1 1 -o FILE/demo",
        "demo-data --train-songs 1 --test-songs 0 --seconds 1 1 -o /proc/demo",
        "separate FILE -o FILE/out --models FILE",
        "store info FILE",
        "evaluate --store FILE --models FILE",
        "preprocess --dataset FILE/songs --store FILE/s.zarr",
    ],
)
def test_file_in_the_place_of_a_folder_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(SystemExit) as end, exit_codes():
        app(command.replace("FILE", str(file)).split())
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(file) in line or "/proc/demo" in line
    assert file.read_text() == "x"


@pytest.mark.parametrize("name", ["two\nlines.mp3", "carriage\rreturn.mp3", "red\x1b[31m.mp3", "two\u2028lines.mp3"])
def test_message_is_one_line_without_orders_to_the_terminal_whatever_a_name_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as end, exit_codes():
        app(["separate", str(tmp_path / name), "-o", str(tmp_path / "out")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/{name.encode('unicode_escape').decode()}: no such file" in line
    assert line.isprintable()
