"""`vocsep separate` and `vocsep export` as processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.forked import run_forked
from tests.vocsep.models.small_models import add_model, music

Completed = subprocess.CompletedProcess[str]
RATE = 22050


def vocsep(*arguments: str, folder: Path) -> Completed:
    return run_forked("vocsep.cli.main", *arguments, folder=folder, environment=os.environ)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one stereo model that is exported to ONNX."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    add_model(folder, channels=2)
    done = vocsep("export", "--models", str(folder), folder=folder.parent)
    assert done.returncode == 0, done.stderr
    assert "largest difference" in done.stdout
    return folder


def write(path: Path, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = music(seed, 2, RATE, seconds)
    soundfile.write(path, waveform.T, RATE, subtype="FLOAT")
    return waveform


def test_options_decide_names_stems_format_and_picture(tmp_path: Path, models: Path) -> None:
    write(tmp_path / "album" / "song.wav")
    arguments = (
        "--name",
        "{folder}-{track}-{stem}",
        "--stems",
        "vocals",
        "--format",
        "flac",
        "--bit-depth",
        "16",
        "--plot",
        "--start",
        "0:00.5",
        "--duration",
        ".25",
        "--page",
    )
    result = vocsep("separate", "album", "-o", "out", "--models", str(models), *arguments, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    place = "album-song 0.5-0.75 s"
    assert files == [f"{place}-listen.html", f"{place}-spectrograms.png", f"{place}-vocals.flac"]
    found = soundfile.info(tmp_path / "out" / files[2])
    assert (found.subtype, found.frames) == ("PCM_16", round(0.75 * RATE) - round(0.5 * RATE))
    assert "x real time" in result.stdout


def test_json_tells_what_became_of_every_file(tmp_path: Path, models: Path) -> None:
    waveform = write(tmp_path / "a.wav")
    write(tmp_path / "b.wav")
    (tmp_path / "words.wav").write_text("words")
    arguments = ("separate", "a.wav", "-o", "out", "--models", str(models), "--json")
    first = vocsep(*arguments, folder=tmp_path)
    (record,) = json.loads(first.stdout)
    assert record["state"] == "separated"
    assert record["seconds"] == pytest.approx(waveform.shape[1] / RATE)
    assert record["outputs"] == {stem: f"out/a/{stem}.wav" for stem in ("vocals", "accompaniment")}
    second = vocsep(*arguments, "b.wav", "words.wav", folder=tmp_path)
    assert second.returncode == 1
    states = {record["input"]: record["state"] for record in json.loads(second.stdout)}
    assert states == {"a.wav": "already there", "b.wav": "separated", "words.wav": "failed"}
    assert "words.wav" in second.stderr


def test_onnx_separates_without_importing_torch_and_gives_the_same_stems(tmp_path: Path, models: Path) -> None:
    write(tmp_path / "song.wav")
    program = (
        "import json, sys\n"
        "from vocsep.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    arguments = ("separate", "song.wav", "--models", str(models), "--engine", "onnx", "-o", "by-onnx")
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    imported = set(json.loads(result.stdout.splitlines()[-1]))
    assert "onnxruntime" in imported
    assert not imported & {"torch", "prefect", "dask", "distributed", "musdb", "museval"}
    assert (
        vocsep(
            "separate", "song.wav", "--models", str(models), "-o", "by-torch", "--precision", "32", folder=tmp_path
        ).returncode
        == 0
    )
    for stem in ("vocals", "accompaniment"):
        first, second = (soundfile.read(tmp_path / by / "song" / f"{stem}.wav")[0] for by in ("by-onnx", "by-torch"))
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--format", "wma"), "format"),
        (("--bit-depth", "8"), "bit_depth"),
        (("--preset", "slow"), "'fast' or 'best'"),
        (("--format", "mp3", "--bit-depth", "16"), "bit depth"),
        (("--stems", "drums"), "stems"),
        (("--format", "flac", "--bitrate", "320"), "mp3, ogg and m4a can"),
        (("--start", "soon"), "as in 90 or 1:30"),
        (("--stems", "vocals,vocals"), "twice"),
        (("--name", "{track}"), "{stem}"),
        (("--name", "{track.__class__}/{stem}"), "{track}"),
        (("--name", "{track/{stem}"), "name"),
        (("--overlap", "0.99"), "overlap"),
        (("--clip", "softly"), "clip"),
        (("--device", "nonsense"), "nonsense"),
        (("--model", "7"), "7"),
        (("--engine", "abacus"), "engine"),
        (("--engine", "onnx", "--model", "none.onnx"), "none.onnx"),
    ],
)
def test_wrong_option_is_one_line_and_exit_code_2(
    tmp_path: Path, models: Path, arguments: tuple[str, ...], word: str
) -> None:
    write(tmp_path / "song.wav", 0.1)
    result = vocsep("separate", "song.wav", "-o", "out", "--models", str(models), *arguments, folder=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    # On a slow machine there is a progress bar, too.
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("separate: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert word in lines[0]
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.*"))
