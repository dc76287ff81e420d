"""Screening: songs with singing among instrumentals are found by listening."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.forked import run_forked
from tests.helpers import one_line
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.screening import SILENT_DB, level_db, loudest_second, screen
from vocsep.mapping import SomeFailed


@pytest.fixture(scope="module")
def songs(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo song with its voice, in a separate folder, and without."""
    folder = tmp_path_factory.mktemp("screening") / "songs"
    (folder / "sung").mkdir(parents=True)
    song = open_dataset(demo_root).split("test")[0]
    waveforms, rate = read_sources(song, ("mixture", "accompaniment"))
    soundfile.write(folder / "sung" / "Anthem.wav", waveforms["mixture"].T, rate)
    soundfile.write(folder / "Interlude.wav", waveforms["accompaniment"].T, rate)
    return folder


def test_song_with_a_voice_is_dropped_and_the_same_without_it_is_kept(songs: Path, tmp_path: Path) -> None:
    kept, dropped = screen(songs, loudest_db=-12, output=tmp_path / "kept", model="bundled")
    assert [one.song for one in kept] == ["Interlude"]
    assert [one.song for one in dropped] == ["sung - Anthem"]
    assert kept[0].vocals_db < -12 < dropped[0].vocals_db < 0
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["Interlude.wav"]
    assert (tmp_path / "kept" / "Interlude.wav").read_bytes() == (songs / "Interlude.wav").read_bytes()


def test_songs_keep_their_folders_and_a_folder_that_is_there_is_refused(songs: Path, tmp_path: Path) -> None:
    kept, dropped = screen(songs, loudest_db=0, output=tmp_path / "kept", model="bundled")
    assert len(kept) == 2
    assert dropped == []
    assert (tmp_path / "kept" / "sung" / "Anthem.wav").is_file()
    one_line(lambda: screen(songs, loudest_db=0, output=tmp_path / "kept", model="bundled"), "exists and is not empty")


@pytest.mark.parametrize("limit", [np.nan, -np.inf, np.inf])
def test_limit_that_is_no_number_of_decibels_is_refused(songs: Path, limit: float) -> None:
    one_line(lambda: screen(songs, loudest_db=limit, model="bundled"), "loudest")


def test_song_that_cannot_be_read_costs_the_others_nothing(songs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "songs"
    folder.mkdir()
    (folder / "Interlude.wav").hardlink_to(songs / "Interlude.wav")
    (folder / "Noise.wav").write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(SomeFailed, match="Noise") as failed:
        screen(folder, loudest_db=-12, output=tmp_path / "kept", model="bundled")
    kept, dropped = failed.value.result
    assert [one.song for one in kept] == ["Interlude"]
    assert dropped == []
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["Interlude.wav"]


def test_command_lists_what_it_drops(songs: Path, tmp_path: Path) -> None:
    result = run_forked("vocsep.cli.main", "screen", str(songs), "-o", "kept", folder=tmp_path, environment=os.environ)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if "Anthem" in line]
    assert "dropped" in line
    (line,) = [line for line in result.stdout.splitlines() if "Interlude" in line]
    assert "kept" in line
    assert "1 kept, 1 dropped" in result.stdout
    assert "vocsep preprocess --dataset kept --kind accompaniment" in result.stdout


def test_level_is_that_of_the_energies() -> None:
    whole = np.ones((2, 1000), dtype=np.float32)
    assert level_db(np.float32(0.1) * whole, whole) == pytest.approx(-20, abs=1e-4)
    assert level_db(np.zeros_like(whole), whole) == SILENT_DB
    assert level_db(np.zeros_like(whole), np.zeros_like(whole)) == SILENT_DB


def test_loudest_second_is_where_the_loudest_ten_seconds_begin() -> None:
    waveform = np.full((1, 3500), 0.1, dtype=np.float32)
    waveform[:, 2500] = 10
    assert loudest_second(waveform, 100) == 20
    assert loudest_second(waveform[:, :0], 100) == 0
