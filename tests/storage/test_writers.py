"""Writers of a store: killed, side by side, on a full disk, in place of an older track."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.shards import shard_bytes
from storage.store import SpectrogramStore
from storage.track_writer import FRAMES_PER_CHUNK, TEMPORARY_FOLDER
from tests.disk import fill, small_disk
from tests.helpers import line_of, start, tree
from tests.storage.stores import (
    CHANNELS,
    CREATE,
    READ_FOR_EVER,
    Array,
    filled_store,
    new_store,
    spectrograms,
    start_writer,
    write,
)


def test_killed_writer_leaves_no_half_track_and_what_it_leaves_is_discarded(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    whole, frames = tree(store.path), 20_000
    for attempt, seconds in enumerate((0.01, 0.05, 0.1)):
        writer = start_writer(store.path, f"killed{attempt}", 0, 1_000_000, frames)
        assert line_of(writer) == "ready"
        assert line_of(writer)
        time.sleep(seconds)
        writer.kill()
        writer.communicate(timeout=600)
    killed = sorted((store.path / "train").glob("killed*"))
    assert len(killed) >= 3
    for folder in killed:
        expected = int(folder.name.rpartition("-")[2]) % 1000 + 1
        for name in SPECTROGRAMS:
            array = zarr.open_array(folder / name, mode="r")
            assert array.shape == (2, frames, 8)
            assert (np.asarray(array[...]) == expected).all()
    again = new_store(store.path)
    assert again.manifest == store.manifest
    again.discard_unfinished()
    again.discard_unfinished()
    assert not (store.path / TEMPORARY_FOLDER).exists()
    assert {name: content for name, content in tree(store.path).items() if "killed" not in name} == whole
    # What exists under a final name is no obstacle to writing that track.
    again.add(write(again, killed[0].name, spectrograms(4)))
    again.save()
    assert SpectrogramStore.open(store.path).damaged_shards() == []


def test_track_is_whole_from_the_first_instant_it_is_seen(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    frames = 20_000
    shard_size = shard_bytes((2, frames, 8), FRAMES_PER_CHUNK, 2)
    writer = start_writer(store.path, "t", 0, 25, frames)
    seen: set[Path] = set()
    while writer.poll() is None:
        for folder in set((store.path / "train").glob("t-*")) - seen:
            assert [(folder / name / "c/0/0/0").stat().st_size for name in SPECTROGRAMS] == [shard_size] * 3
            seen.add(folder)
    writer.communicate(timeout=600)
    assert len(seen) > 5


def test_writer_whose_arrays_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    before = tree(store.path)
    bad = spectrograms(1) | {"vocals": np.array([[object()]])}
    with pytest.raises((TypeError, ValueError)):
        write(store, "bad", bad)
    assert tree(store.path) == before


def test_threads_write_different_tracks_at_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda seed: write(store, f"t-{seed:02}", spectrograms(seed)), range(24)))
    for record in records:
        store.add(record)
    store.save()
    again = SpectrogramStore.open(store.path)
    assert again.damaged_shards() == []
    for seed, track in enumerate(again.tracks("train")):
        np.testing.assert_array_equal(again.array(track, "vocals"), spectrograms(seed)["vocals"])


def test_processes_write_different_tracks_at_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    writers = [start_writer(store.path, f"p{number}", 0, 6, 500) for number in range(3)]
    for writer in writers:
        output, _ = writer.communicate(timeout=600)
        assert writer.returncode == 0
        for line in output.splitlines()[1:]:
            store.add(TrackRecord.model_validate_json(line))
    store.save()
    again = SpectrogramStore.open(store.path)
    assert len(again.tracks("train")) == 18
    assert again.damaged_shards() == []
    for track in again.tracks("train"):
        assert (again.array(track, "mixture") == int(track.id.rpartition("-")[2]) + 1).all()
    assert not list((store.path / TEMPORARY_FOLDER).iterdir())


def test_readers_open_a_whole_store_at_every_moment_while_a_writer_adds_tracks(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    readers = [start(READ_FOR_EVER, store.path, 40) for _ in range(3)]
    for number in range(40):
        arrays: dict[str, Array] = {name: np.full((2, 300, 8), number + 1, np.float16) for name in SPECTROGRAMS}
        store.add(write(store, f"t-{number:02}", arrays))
        store.save()
    assert [reader.communicate(timeout=600)[0] for reader in readers] == ["all there\n"] * 3


def test_of_processes_that_create_a_store_at_once_one_does_and_the_others_open_it(tmp_path: Path) -> None:
    for attempt in range(2):
        path = tmp_path / f"{attempt}.zarr"
        processes = [start(CREATE, path, f"of process {number}") for number in range(4)]
        assert {line_of(process) for process in processes} == {"ready"}
        answers = {process.communicate("\n", timeout=600)[0] for process in processes}
        assert len(answers) == 1
        assert SpectrogramStore.open(path).manifest.dataset["kind"] == answers.pop().strip()
        assert list(tmp_path.iterdir()) == [path]
        shutil.rmtree(path)


def test_discarding_keeps_what_the_manifest_names_and_what_lies_beside_and_deletes_the_rest(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    before = tree(tmp_path)
    (tmp_path / ".s.zarr.unfinished-0123").mkdir()  # a store that a killed process was about to create or delete
    (tmp_path / "other").write_text("mine")
    (tmp_path / ".other.zarr.unfinished-0123").mkdir()
    write(store, "d-4", spectrograms(4))
    store.discard_unfinished()
    assert tree(tmp_path) == before | {"other": b"mine"}
    assert not (tmp_path / ".s.zarr.unfinished-0123").exists()
    assert (tmp_path / ".other.zarr.unfinished-0123").exists()
    assert not (store.path / "train" / "d-4").exists()


def test_track_that_leaves_the_manifest_leaves_the_saved_one_before_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled_store(tmp_path / "s.zarr")
    named_at_deletion = []

    def deleting(path: Path, **_: object) -> None:
        if path.name == "b-2":
            named_at_deletion.append(sorted(SpectrogramStore.open(store.path).manifest.tracks))

    monkeypatch.setattr(shutil, "rmtree", deleting)
    del store.manifest.tracks["b-2"]
    store.discard_unfinished()
    assert named_at_deletion == [["a-1", "c-3"]]


def test_full_disk_keeps_the_saved_manifest_and_its_tracks_until_there_is_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 3 << 20) as disk:
        store = filled_store(disk / "s.zarr")
        held = SpectrogramStore.open(store.path).manifest
        fill(disk / "filler")
        with pytest.raises(OSError, match="No space left"):
            write(store, "d-4", spectrograms(4))
        with pytest.raises(OSError, match="No space left"):
            store.save()
        assert SpectrogramStore.open(store.path).manifest == held
        assert store.damaged_shards() == []
        (disk / "filler").unlink()
        store.add(write(store, "d-4", spectrograms(4)))
        store.discard_unfinished()
        assert sorted(SpectrogramStore.open(store.path).manifest.tracks) == ["a-1", "b-2", "c-3", "d-4"]
        assert sorted(entry.name for entry in store.path.iterdir()) == [
            "manifest.json",
            "test",
            "train",
            "valid",
            "zarr.json",
        ]


def test_track_written_again_replaces_the_old_one_whole(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    extra = {"mixture_waveform": np.zeros((CHANNELS, 10), np.float32)}
    store.add(write(store, "b-2", spectrograms(2) | extra))
    store.add(write(store, "b-2", spectrograms(9, frames=40)))
    store.save()
    again = SpectrogramStore.open(store.path)
    track = again.manifest.tracks["b-2"]
    assert track.frames == 40
    assert sorted(track.arrays) == sorted(SPECTROGRAMS)
    assert not (store.path / "train" / "b-2" / "mixture_waveform").exists()
    np.testing.assert_array_equal(again.array(track, "mixture"), spectrograms(9, frames=40)["mixture"])
    assert not list((store.path / TEMPORARY_FOLDER).iterdir())


def test_map_taken_before_a_track_was_replaced_keeps_the_old_values(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    mapped = store.array(store.manifest.tracks["b-2"], "mixture")
    write(store, "b-2", spectrograms(9))
    np.testing.assert_array_equal(mapped, spectrograms(2)["mixture"])
