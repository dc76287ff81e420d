"""What `separate` writes, `evaluate` and `score` read; and no report is made of nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import one_line
from tests.vocsep.evaluation.evaluation_songs import RATE, add_model, write_stems
from vocsep.audio.info import AudioInfo
from vocsep.audio.writing import AudioWriter
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.score_folders import score_folders
from vocsep.evaluation.step import evaluate
from vocsep.evaluation.subjects import FolderSubject
from vocsep.separation.settings import SeparationSettings
from vocsep.separation.step import SeparateConfig, separate


@pytest.mark.parametrize("container", ["wav", "m4a"])
def test_stems_that_separate_wrote_of_stem_files_are_estimates(demo_root: Path, tmp_path: Path, container: str) -> None:
    song = open_dataset(demo_root).split("test")[0]
    add_model(tmp_path / "models")
    settings = SeparationSettings.model_validate({"model": "1", "format": container})
    separate(
        SeparateConfig(
            inputs=(song.mixture[0].path,), output=tmp_path / "out", models=tmp_path / "models", settings=settings
        )
    )
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == [song.name]
    mixture = read_sources(song, ["mixture"])[0]["mixture"]
    found = FolderSubject(tmp_path / "out").estimate(song, mixture, 44100)
    assert found["vocals"].shape == found["accompaniment"].shape == mixture.shape
    # Of AAC, about what it keeps.
    difference = found["vocals"] + found["accompaniment"] - mixture
    assert np.sum(np.square(difference)) < 0.1 * np.sum(np.square(mixture))
    (tmp_path / "out" / song.name).rename(tmp_path / "out" / f"{song.name}.stem")
    again = FolderSubject(tmp_path / "out").estimate(song, mixture, 44100)
    np.testing.assert_array_equal(again["vocals"], found["vocals"])


def test_estimates_in_m4a_are_scored_at_the_length_that_they_say(tmp_path: Path) -> None:
    stems = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 1, 2 * RATE + 321)).astype(np.float32)
    write_stems(tmp_path / "true", {"vocals": stems[0], "drums": stems[1]})
    (tmp_path / "estimated").mkdir()
    for name, stem in zip(("vocals", "drums"), stems, strict=True):
        path = tmp_path / "estimated" / f"{name}.m4a"
        with AudioWriter(path, "m4a", AudioInfo(path, RATE, "mono", ("FC",))) as writer:
            writer.write(stem)
    scores = score_folders(tmp_path / "true", tmp_path / "estimated")
    assert all(scores["sources"][name]["SDR"]["median"] > 3 for name in ("vocals", "drums"))


def test_estimates_of_no_song_make_no_report(demo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "estimates").mkdir()
    config = EvaluateConfig(
        estimates=tmp_path / "estimates", dataset=demo_root, models=tmp_path / "models", reports=tmp_path / "reports"
    )
    names = [song.name for song in open_dataset(demo_root).split("test")]
    one_line(lambda: evaluate(config), "no report", "no estimates of", *names)
    assert list((tmp_path / "reports").iterdir()) == []


def test_frames_that_do_not_count_are_told_by_their_reasons(tmp_path: Path) -> None:
    stems = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 2, 3 * RATE)).astype(np.float32)
    stems[1, :, :RATE] = 0
    write_stems(tmp_path / "true", {"vocals": stems[0], "drums": stems[1]})
    scores = score_folders(tmp_path / "true", tmp_path / "true")
    assert len(scores["notes"]) == 2
    for note, name in zip(scores["notes"], ("drums", "vocals"), strict=True):
        assert scores["sources"][name]["SDR"]["median"] is None
        assert name in note
        assert "1 silent" in note
        assert "2 without any error" in note
