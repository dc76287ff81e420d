import shutil
from pathlib import Path

import pytest

from storage.integrity import problems
from storage.lock import store_lock
from storage.manifest import MANIFEST_NAME
from storage.store import SpectrogramStore
from tests.helpers import flip, one_line, tree
from tests.stores import shard_times
from vocsep.datasets.layouts import open_dataset
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.repair import repair
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import updating
from vocsep.spectrograms.config import load_spectrogram_config

FINE = StoreConfig(spectrogram=load_spectrogram_config("fine"))


@pytest.fixture
def songs(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the demo songs, to change."""
    shutil.copytree(demo_root, tmp_path / "songs")
    return tmp_path / "songs"


@pytest.fixture
def store(songs: Path, tmp_path: Path) -> SpectrogramStore:
    """A store of the copied songs, to damage."""
    path = tmp_path / "s.zarr"
    with updating(path, open_dataset(songs), FINE) as (update, work):
        for song in work.pending:
            update.add(preprocess_song(song, path, FINE))
    return SpectrogramStore.open(path)


def test_every_kind_of_damage_is_made_good_from_the_songs_and_no_other_track_is_touched(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    """A flipped byte, a cut and a deleted shard, an edited record, a half-written track, and one track as it was."""
    before, times = tree(store.path), shard_times(store.path)
    tracks = sorted(store.manifest.tracks.values(), key=lambda track: track.id)
    flipped, cut, deleted, edited, half, whole = tracks
    flip(store.path / flipped.arrays["vocals"].shard)
    shard = store.path / cut.arrays["mixture"].shard
    shard.write_bytes(shard.read_bytes()[:-100])
    (store.path / deleted.arrays["accompaniment"].shard).unlink()
    del store.manifest.tracks[half.id]
    store.save()
    shutil.rmtree(store.path / half.split / half.id / "vocals")
    manifest = store.path / MANIFEST_NAME
    text = manifest.read_text()
    assert text.count(f'"name": "{edited.name}"') == 1
    manifest.write_text(text.replace(f'"name": "{edited.name}"', '"name": "Another"'))

    progress: list[tuple[float, float]] = []
    assert sorted(repair(store.path, lambda done, count: progress.append((done, count)))) == sorted(
        track.name for track in (flipped, cut, deleted, edited, half)
    )
    assert progress == [(done, 5) for done in range(6)]
    assert problems(store.path) == []
    assert tree(store.path) == before
    kept = {
        name: time for name, time in shard_times(store.path).items() if name.startswith(f"{whole.split}/{whole.id}/")
    }
    assert kept
    assert kept.items() <= times.items()
    assert [path.name for path in tmp_path.iterdir() if "zarr" in path.name] == ["s.zarr"]


def test_intact_store_is_left_as_it_is_even_without_its_songs(store: SpectrogramStore, songs: Path) -> None:
    before = tree(store.path)
    shutil.rmtree(songs)
    assert repair(store.path) == []
    assert tree(store.path) == before


def test_damaged_track_whose_song_is_gone_or_broken_is_dropped_and_named_and_the_others_are_made(
    store: SpectrogramStore, songs: Path
) -> None:
    fixed, broken, gone = store.tracks("train")
    for track in (fixed, broken, gone):
        flip(store.path / track.arrays["vocals"].shard)
    (songs / "train" / f"{gone.name}.stem.mp4").unlink()
    (songs / "train" / f"{broken.name}.stem.mp4").write_bytes(b"no sound")
    message = one_line(lambda: repair(store.path), "2 damaged tracks", gone.name, broken.name)
    assert fixed.name not in message
    assert problems(store.path) == []
    opened = SpectrogramStore.open(store.path)
    assert [track.id for track in opened.tracks("train")] == [fixed.id]


def test_missing_dataset_and_a_writer_at_work_are_one_line(store: SpectrogramStore, songs: Path) -> None:
    before = tree(store.path)
    flip(store.path / store.tracks("test")[0].arrays["vocals"].shard)
    with store_lock(store.path):
        one_line(lambda: repair(store.path), "being written by")
    assert SpectrogramStore.open(store.path).manifest == store.manifest
    away = songs.rename(songs.with_name("away"))
    one_line(lambda: repair(store.path), "no such dataset folder")
    # The damaged track is no longer named, so that the next run makes it.
    away.rename(songs)
    with updating(store.path, open_dataset(songs), FINE) as (update, work):
        assert [song.name for song in work.pending] == [store.tracks("test")[0].name]
        update.add(preprocess_song(work.pending[0], store.path, FINE))
    assert tree(store.path) == before
