"""The room on disk that a run needs."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from storage.store import SpectrogramStore
from tests.disk import fill, small_disk
from tests.helpers import one_line
from tests.vocsep.preprocessing.updates import FINE, NOTEBOOK, run, saved
from vocsep.datasets.layouts import open_dataset
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.room import estimated_bytes


@pytest.mark.parametrize("preset", [FINE, NOTEBOOK], ids=["fine", "notebook"])
def test_estimate_of_the_room_is_that_of_the_store_or_a_little_more(
    demo_root: Path, tmp_path: Path, preset: StoreConfig
) -> None:
    dataset = open_dataset(demo_root)
    run(tmp_path / "s.zarr", dataset, preset)
    command = ["du", "--summarize", "--block-size=1", str(tmp_path / "s.zarr")]
    used = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[0])
    assert used <= estimated_bytes(dataset.songs, preset) <= 1.05 * used + 100_000 * len(dataset.songs)


def test_estimate_counts_a_mono_song_once_and_songs_that_cannot_be_read_as_nothing(
    real_songs: Path, tmp_path: Path
) -> None:
    (stereo, broken) = open_dataset(real_songs).songs
    for name in ("mixture", "vocals"):
        sound, rate = soundfile.read(real_songs / "train" / "Song 0" / f"{name}.wav")
        (tmp_path / "mono" / "train" / "Song").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "mono" / "train" / "Song" / f"{name}.wav", sound[:, 0], rate)
        (real_songs / "test" / "Song 1" / f"{name}.wav").write_bytes(b"")
    (mono,) = open_dataset(tmp_path / "mono").songs
    assert estimated_bytes([broken], FINE) == 0
    small_files = 100_000
    two, one = (estimated_bytes([song], FINE) - small_files for song in (stereo, mono))
    assert two == pytest.approx(2 * one, rel=0.01)


def test_run_for_which_there_is_no_room_is_refused_before_it_begins_saying_what_is_needed_and_free(
    demo_root: Path, demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    dataset = open_dataset(demo_root)
    whole = sum(track.bytes for track in demo_store.manifest.tracks.values())
    with small_disk(tmp_path / "disk", round(0.9 * whole)) as disk:
        megabytes = f"{estimated_bytes(dataset.songs, FINE) / 1e6:,.0f} MB"
        one_line(lambda: run(disk / "s.zarr", dataset), "6 songs need", megabytes, "MB are free")
        assert saved(disk / "s.zarr") == []
        # Half of the songs have room, and existing ones are not asked for again.
        half = replace(dataset, songs=dataset.songs[:3])
        run(disk / "s.zarr", half)
        assert run(disk / "s.zarr", half)[1].finished == 3
        one_line(lambda: run(disk / "s.zarr", dataset), "3 songs need")
        assert len(saved(disk / "s.zarr")) == 3


def test_disk_too_full_to_create_a_store_or_a_lock_gives_one_line(demo_root: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        fill(disk / "filler")
        one_line(lambda: run(disk / "s.zarr", open_dataset(demo_root)), disk, "disk full")
