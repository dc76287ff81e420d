import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from storage.errors import UserError
from tests.reference import museval
from tests.vocsep.cli.test_main import assert_one_line, vocsep
from vocsep.evaluation.score_folders import score_folders
from vocsep.metrics.bsseval import METRICS

Array = NDArray[np.float64]
RATE = 8000


def write_sources(folder: Path, seed: int, samples: int = 3 * RATE, channels: int = 2) -> Array:
    """Noise as `drums.wav` and `vocals.flac`; returns `(sources, samples, channels)` as they are read back."""
    folder.mkdir()
    stems = 0.2 * np.random.default_rng(seed).standard_normal((2, samples, channels)).clip(-4, 4)
    soundfile.write(folder / "drums.wav", stems[0], RATE, subtype="FLOAT")
    soundfile.write(folder / "vocals.flac", stems[1], RATE, subtype="PCM_24")
    return np.stack(
        [soundfile.read(path, always_2d=True)[0] for path in (folder / "drums.wav", folder / "vocals.flac")]
    )


def test_scores_of_two_folders_are_those_of_museval(tmp_path: Path) -> None:
    true = write_sources(tmp_path / "true", 0)
    estimated = write_sources(tmp_path / "estimated", 1)
    scores = score_folders(tmp_path / "true", tmp_path / "estimated")
    expected = dict(zip(METRICS, museval.evaluate(true, estimated, win=RATE, hop=RATE), strict=True))
    for index, name in enumerate(("drums", "vocals")):
        for metric in METRICS:
            found = scores["sources"][name][metric]
            np.testing.assert_allclose(found["frames"], expected[metric][index], atol=1e-3)
            assert found["median"] == pytest.approx(float(np.median(found["frames"])))


def test_command_prints_medians_and_writes_every_frame(tmp_path: Path) -> None:
    write_sources(tmp_path / "true", 0)
    write_sources(tmp_path / "estimated", 0)
    result = vocsep("score", "true", "estimated", "-o", "scores.json", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "drums" in result.stdout
    assert "vocals" in result.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert len(scores["sources"]["vocals"]["SDR"]["frames"]) == 3


def test_folder_scored_against_itself_says_why_there_are_no_scores(tmp_path: Path) -> None:
    write_sources(tmp_path / "true", 0)
    result = vocsep("score", "true", "true", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("drums", "vocals"):
        (line,) = [line for line in result.stdout.splitlines() if line.startswith(f"{name}: ")]
        assert "3 without any error" in line


def test_half_the_level_scores_6_db(tmp_path: Path) -> None:
    true = write_sources(tmp_path / "true", 0)
    (tmp_path / "half").mkdir()
    soundfile.write(tmp_path / "half" / "drums.wav", 0.5 * true[0], RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "half" / "vocals.wav", 0.5 * true[1], RATE, subtype="FLOAT")
    scores = score_folders(tmp_path / "true", tmp_path / "half")
    np.testing.assert_allclose(scores["sources"]["drums"]["SDR"]["frames"], 20 * math.log10(2), atol=1e-4)


def test_folders_that_do_not_go_together_are_refused_in_one_line(tmp_path: Path) -> None:
    write_sources(tmp_path / "true", 0)
    write_sources(tmp_path / "shorter", 1, samples=2 * RATE)
    write_sources(tmp_path / "mono", 1, channels=1)
    write_sources(tmp_path / "fewer", 1)
    (tmp_path / "fewer" / "drums.wav").unlink()
    (tmp_path / "empty").mkdir()
    for folder, words in (("shorter", "samples"), ("mono", "channels"), ("fewer", "drums"), ("nowhere", "no such")):
        with pytest.raises(UserError, match=words) as caught:
            score_folders(tmp_path / "true", tmp_path / folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no audio files"):
        score_folders(tmp_path / "empty", tmp_path / "true")
    assert_one_line(vocsep("score", "true", "mono", folder=tmp_path), "channels")
