"""Stores brought up to date: what is made again, kept, dropped and refused."""

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.lock import store_lock
from storage.store import SpectrogramStore
from storage.track_writer import TEMPORARY_FOLDER
from tests.helpers import flip, one_line, tree
from tests.vocsep.preprocessing.updates import FINE, NOTEBOOK, CopyStore, names, paths_in, run, saved
from vocsep.datasets.layouts import open_dataset
from vocsep.preprocessing.plan import Plan, check_store, plan
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import open_store, updating


def test_second_plan_has_nothing_to_do(demo_root: Path, copy_of_demo_store: CopyStore) -> None:
    dataset = open_dataset(demo_root)
    store = open_store(copy_of_demo_store().path, dataset, FINE)
    before = store.manifest.model_dump()
    todo = plan(store, dataset)
    assert todo == Plan(pending=(), finished=6, gone=())
    assert store.manifest.model_dump() == before


def test_file_that_was_touched_or_copied_but_is_equal_is_not_made_again(
    songs: Path, copy_of_demo_store: CopyStore
) -> None:
    for path in songs.rglob("*.stem.mp4"):
        os.utime(path, ns=(1, 1))
    dataset = open_dataset(songs)
    store = open_store(copy_of_demo_store().path, dataset, FINE)
    assert plan(store, dataset).pending == ()
    assert store.manifest.dataset["root"] == str(songs.resolve())


def test_changed_file_is_made_again_and_only_it(songs: Path, copy_of_demo_store: CopyStore) -> None:
    dataset = open_dataset(songs)
    first, second = dataset.split("train")[:2]
    shutil.copy(second.mixture[0].path, first.mixture[0].path)
    path = copy_of_demo_store().path
    store, todo = run(path, dataset)
    assert names(todo) == [first.name]
    assert todo.finished == 5
    changed, model = store.manifest.tracks[first.id], store.manifest.tracks[second.id]
    for name in ("mixture", "vocals", "accompaniment"):
        np.testing.assert_array_equal(store.array(changed, name), store.array(model, name))
    assert run(path, dataset)[1].pending == ()
    assert SpectrogramStore.open(path).damaged_shards() == []


def test_file_that_changed_in_one_byte_is_made_again(songs: Path, copy_of_demo_store: CopyStore) -> None:
    path = copy_of_demo_store().path
    dataset = open_dataset(songs)
    song = dataset.split("test")[0]
    store, _ = run(path, dataset)
    flip(song.mixture[0].path, -1)
    assert names(plan(store, dataset)) == [song.name]


def test_song_without_its_file_is_pending(songs: Path, copy_of_demo_store: CopyStore) -> None:
    dataset = open_dataset(songs)
    song = dataset.split("train")[0]
    song.mixture[0].path.unlink()
    store = open_store(copy_of_demo_store().path, dataset, FINE)
    assert names(plan(store, dataset)) == [song.name]
    one_line(lambda: preprocess_song(song, store.path, FINE), song.mixture[0].path, "no such file")


def test_track_of_a_song_that_the_dataset_lost_is_kept_and_named(songs: Path, copy_of_demo_store: CopyStore) -> None:
    song = open_dataset(songs).split("test")[0]
    song.mixture[0].path.unlink()
    store, todo = run(copy_of_demo_store().path, open_dataset(songs))
    assert todo == Plan(pending=(), finished=5, gone=(song.name,))
    assert song.id in store.manifest.tracks


def test_pruning_drops_tracks_of_lost_songs_and_their_files_and_nothing_else(
    songs: Path, copy_of_demo_store: CopyStore
) -> None:
    path = copy_of_demo_store().path
    song = open_dataset(songs).split("test")[0]
    run(path, open_dataset(songs))
    before = tree(path)
    song.mixture[0].path.unlink()
    _, todo = run(path, open_dataset(songs), prune=True)
    assert todo.gone == (song.name,)
    after = tree(path)
    assert song.name not in saved(path)
    assert before.keys() - after.keys() == {name for name in before if name.startswith(f"test/{song.id}/")}
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    assert run(path, open_dataset(songs), prune=True)[1].gone == ()


def test_song_that_cannot_be_used_just_now_is_not_gone(real_songs: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    run(path, open_dataset(real_songs))
    (real_songs / "test" / "Song 1" / "vocals.wav").unlink()
    dataset = open_dataset(real_songs)
    assert list(dataset.problems) == ["Song 1"]
    assert run(path, dataset, prune=True)[1] == Plan(pending=(), finished=1, gone=())
    assert saved(path) == ["Song 0", "Song 1"]


def test_changed_song_is_in_no_manifest_while_it_is_made_again(songs: Path, copy_of_demo_store: CopyStore) -> None:
    """Its shards are replaced before the manifest is: between the two, an old record would be of other bytes."""
    path = copy_of_demo_store().path
    first, second = open_dataset(songs).split("train")[:2]
    shutil.copy(second.mixture[0].path, first.mixture[0].path)
    before = saved(path)
    with updating(path, open_dataset(songs), FINE) as (update, todo):
        assert names(todo) == [first.name]
        assert saved(path) == [name for name in before if name != first.name]
        update.add(preprocess_song(first, path, FINE))
    assert saved(path) == before


def test_changed_song_that_cannot_be_made_again_keeps_its_old_track(songs: Path, copy_of_demo_store: CopyStore) -> None:
    store = copy_of_demo_store()
    song = open_dataset(songs).split("train")[0]
    song.mixture[0].path.write_bytes(b"no sound")
    with updating(store.path, open_dataset(songs), FINE) as (_, todo):
        one_line(lambda: preprocess_song(todo.pending[0], store.path, FINE), song.mixture[0].path)
    again = SpectrogramStore.open(store.path)
    assert again.manifest.tracks == store.manifest.tracks
    assert again.damaged_shards() == []
    assert names(plan(again, open_dataset(songs))) == [song.name]


def test_songs_that_were_made_before_an_error_are_saved(demo_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(demo_root)
    with contextlib.suppress(ZeroDivisionError), updating(tmp_path / "s.zarr", dataset, FINE) as (update, todo):
        update.add(preprocess_song(todo.pending[0], update.path, FINE))
        raise ZeroDivisionError
    assert saved(tmp_path / "s.zarr") == [todo.pending[0].name]
    with store_lock(tmp_path / "s.zarr"):
        pass


def test_second_run_is_refused_while_the_first_one_is_in_work_and_readers_are_not(
    demo_root: Path, copy_of_demo_store: CopyStore
) -> None:
    path, dataset = copy_of_demo_store().path, open_dataset(demo_root)
    with updating(path, dataset, FINE):
        one_line(lambda: run(path, dataset), path, f"process {os.getpid()} ")
        assert len(saved(path)) == 6
    run(path, dataset)


def test_song_that_moved_to_another_split_is_in_the_new_one_alone(songs: Path, copy_of_demo_store: CopyStore) -> None:
    song = open_dataset(songs).split("train")[0]
    shutil.move(song.mixture[0].path, songs / "test")
    path = copy_of_demo_store().path
    store, todo = run(path, open_dataset(songs))
    assert names(todo) == [song.name]
    for again in (store, SpectrogramStore.open(path)):
        tracks = again.manifest.tracks.values()
        assert [track.split for track in tracks if track.name == song.name] == ["test"]
        assert song.name not in {track.name for track in again.tracks("train") + again.tracks("valid")}


def test_track_with_a_lost_shard_is_made_again_and_only_it(demo_root: Path, copy_of_demo_store: CopyStore) -> None:
    store = copy_of_demo_store()
    track = store.tracks("test")[1]
    (store.path / track.arrays["vocals"].shard).unlink()
    again, todo = run(store.path, open_dataset(demo_root))
    assert names(todo) == [track.name]
    assert again.manifest == store.manifest
    assert again.damaged_shards() == []


def test_demo_store_gives_way_to_real_songs(real_songs: Path, copy_of_demo_store: CopyStore) -> None:
    path = copy_of_demo_store().path
    _, todo = run(path, open_dataset(real_songs))
    assert names(todo) == ["Song 0", "Song 1"]
    again = SpectrogramStore.open(path)
    assert sorted(track.name for track in again.manifest.tracks.values()) == ["Song 0", "Song 1"]
    assert again.manifest.dataset == {"kind": "folder", "root": str(real_songs.resolve())}
    assert len(list(path.glob("*/*/mixture"))) == 2


def test_store_of_real_songs_is_refused_for_the_demo_and_for_other_real_songs(
    real_songs: Path, demo_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    run(path, open_dataset(real_songs))
    before = paths_in(path)
    others = tmp_path / "others"
    shutil.copytree(real_songs / "train" / "Song 0", others / "train" / "Another song")
    for dataset in (open_dataset(demo_root), open_dataset(others), open_dataset(demo_root, "musdb18")):
        one_line(lambda dataset=dataset: open_store(path, dataset, FINE), path, dataset.root)  # type: ignore[misc]
    assert paths_in(path) == before
    SpectrogramStore.open(path)


def test_store_is_refused_for_another_preset_naming_what_differs(demo_root: Path, demo_store: SpectrogramStore) -> None:
    dataset = open_dataset(demo_root)
    one_line(lambda: open_store(demo_store.path, dataset, NOTEBOOK), demo_store.path, "sample_rate", "11025", "8192")


def test_moved_dataset_goes_on_with_its_store(real_songs: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    run(path, open_dataset(real_songs))
    moved = real_songs.rename(tmp_path / "moved")
    assert run(path, open_dataset(moved))[1].pending == ()
    assert SpectrogramStore.open(path).manifest.dataset["root"] == str(moved.resolve())


@pytest.mark.parametrize("content", [b"", b"this is no sound", None], ids=["empty", "text", "cut off"])
def test_broken_song_is_refused_by_name_and_leaves_no_track(songs: Path, tmp_path: Path, content: bytes | None) -> None:
    dataset = open_dataset(songs)
    song = dataset.split("train")[0]
    file = song.mixture[0].path
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    store = open_store(tmp_path / "s.zarr", dataset, FINE)
    before = paths_in(store.path)
    one_line(lambda: preprocess_song(song, store.path, FINE), file)
    assert [path for path in paths_in(store.path) if path != TEMPORARY_FOLDER] == before
    # The others continue, and the fixed song comes later.
    other = dataset.split("train")[1]
    store.add(preprocess_song(other, store.path, FINE))
    store.save()
    assert [track.name for track in SpectrogramStore.open(store.path).manifest.tracks.values()] == [other.name]
    file.write_bytes(whole)
    assert song.name in names(plan(store, dataset))
    store.add(preprocess_song(song, store.path, FINE))
    store.save()
    assert len(SpectrogramStore.open(store.path).manifest.tracks) == 2


def test_checking_a_store_says_whether_the_demo_gives_way_and_writes_nothing(
    demo_root: Path, copy_of_demo_store: CopyStore, tmp_path: Path
) -> None:
    demo = open_dataset(demo_root)
    assert not check_store(tmp_path / "new.zarr", demo, FINE)
    assert not (tmp_path / "new.zarr").exists()
    store = copy_of_demo_store()
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    assert not check_store(store.path, demo, FINE)
    assert check_store(store.path, replace(demo, kind="folder"), FINE)
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before
