"""Stores in a bucket: pushed, fetched, written by workers anywhere."""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ObjectStore

from storage.manifest import MANIFEST_NAME
from storage.remote.bucket import connect
from storage.remote.mirror import fetch, mirror_path
from storage.remote.store import RemoteStore, push, upload_track
from storage.store import SpectrogramStore
from tests import helpers
from tests.helpers import tree
from tests.storage.remote.buckets import CONFIG, DATASET, SECRET, add_track, arrays, local_store, objects, one_line
from tests.tracks import write_track


def test_a_pushed_store_has_the_same_files_and_the_fetched_copy_too(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    assert push(local.path, url) == 5
    expected = tree(local.path)
    assert objects(url) == expected
    copy = fetch(url, tmp_path / "cache")
    assert tree(copy) == expected
    assert copy == mirror_path(url, tmp_path / "cache")
    assert copy.parent == tmp_path / "cache"


def test_plain_zarr_reads_the_remote_store_through_obstore(local: SpectrogramStore, url: str) -> None:
    push(local.path, url)
    root = zarr.open_group(ObjectStore(connect(url), read_only=True), mode="r")
    assert dict(root.attrs)["config"] == CONFIG
    for split, track_id, seed in (("train", "t-001", 1), ("valid", "v-0", 10), ("test", "x-0", 11)):
        track = root[f"{split}/{track_id}"]
        assert isinstance(track, zarr.Group)
        assert track.attrs["name"] == f"Name of {track_id}"
        for name, expected in arrays(seed).items():
            array = track[name]
            assert isinstance(array, zarr.Array)
            np.testing.assert_array_equal(np.asarray(array[...]), expected)
    train = root["train"]
    assert isinstance(train, zarr.Group)
    assert sorted(name for name, _ in train.groups()) == ["t-000", "t-001", "t-002"]


def test_a_shard_of_many_parts_arrives_whole_or_not_at_all(url: str, tmp_path: Path) -> None:
    store = local_store(tmp_path / "local.zarr")
    big: dict[str, NDArray[Any]] = {"mixture": np.random.default_rng(0).random((2, 3000, 1024)).astype(np.float16)}
    store.add(write_track(store.path, "t-0", name="x", split="train", seconds=1, arrays=big))
    store.save()
    assert store.manifest.tracks["t-0"].bytes > 12_000_000
    push(store.path, url)
    assert tree(fetch(url, tmp_path / "cache")) == tree(store.path)

    helpers.flip(store.path / "train/t-0/mixture/c/0/0/0")
    elsewhere = url.replace("songs", "others")
    upload = functools.partial(upload_track, store.path / "train/t-0", elsewhere, store.manifest.tracks["t-0"])
    one_line(upload, "not what the manifest says")
    assert objects(elsewhere) == {}


def test_only_the_wanted_splits_are_copied(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(local.path, url)
    copy = fetch(url, tmp_path / "cache", splits=("train", "valid"))
    opened = SpectrogramStore.open(copy)
    assert sorted(opened.manifest.tracks) == ["t-000", "t-001", "t-002", "v-0"]
    assert not (copy / "test" / "x-0").exists()
    assert opened.damaged_shards() == []
    expected = {key: content for key, content in tree(local.path).items() if "x-0" not in key}
    found = tree(copy)
    assert {**found, MANIFEST_NAME: b""} == {**expected, MANIFEST_NAME: b""}


def test_a_second_push_uploads_only_what_differs_and_removed_tracks_disappear(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    push(local.path, url)
    copy = fetch(url, tmp_path / "cache")
    assert push(local.path, url) == 0

    add_track(local, "t-000", 77)
    add_track(local, "t-900", 78)
    del local.manifest.tracks["t-002"]
    local.discard_unfinished()
    assert push(local.path, url) == 2
    expected = tree(local.path)
    assert not any("t-002" in key for key in expected)
    assert objects(url) == expected

    untouched = copy / "train/t-001/mixture/c/0/0/0"
    number = untouched.stat().st_ino
    assert fetch(url, tmp_path / "cache") == copy
    assert tree(copy) == expected
    assert untouched.stat().st_ino == number


def test_progress_counts_every_byte_of_the_shards(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    total = sum(track.bytes for track in local.manifest.tracks.values())
    calls: list[tuple[int, int]] = []

    def on_bytes(done: int, total: int) -> None:
        calls.append((done, total))

    for action in (
        lambda: push(local.path, url, on_bytes),
        lambda: fetch(url, tmp_path / "cache", on_bytes=on_bytes),
        lambda: RemoteStore.open(url).problems(on_bytes),
    ):
        calls.clear()
        action()
        assert calls[0] == (0, total)
        assert calls[-1] == (total, total)
        assert calls == sorted(calls)


def test_tracks_uploaded_by_workers_without_a_shared_disk_make_the_same_store(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    remote = RemoteStore.open_or_create(url, config=CONFIG, dataset=DATASET, tool="test")
    for track in local.manifest.tracks.values():
        elsewhere = tmp_path / "worker" / "anything"
        shutil.copytree(local.path / track.split / track.id, elsewhere)
        upload_track(elsewhere, url, track)
        shutil.rmtree(elsewhere)
        remote.add(track)
    assert RemoteStore.open(url).manifest.tracks == {}
    remote.save()
    assert objects(url) == tree(local.path)


def test_a_worker_does_not_upload_a_track_that_differs_from_its_record(local: SpectrogramStore, url: str) -> None:
    track = local.manifest.tracks["t-001"]
    helpers.flip(local.path / track.arrays["vocals"].shard)
    one_line(lambda: upload_track(local.path / "train/t-001", url, track), "vocals", "not what the manifest says")
    assert track.arrays["vocals"].shard not in objects(url)
    (local.path / track.arrays["vocals"].shard).unlink()
    one_line(lambda: upload_track(local.path / "train/t-001", url, track), "vocals", "missing")


def test_no_secret_is_ever_stored(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(local.path, url)
    copy = fetch(url, tmp_path / "cache")
    stored = [*objects(url).values(), *tree(copy).values()]
    assert len(stored) > 50
    assert not any(SECRET.encode() in content or b"someone" in content for content in stored)
