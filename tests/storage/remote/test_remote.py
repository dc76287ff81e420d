"""Stores in object storage, against a real S3 server (moto) in a process of its own on the loopback interface."""

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import ObjectStore

import storage.remote.bucket
import storage.remote.mirror
import storage.remote.store
from storage.files import MOST_READ_BYTES
from storage.lock import store_lock
from storage.manifest import MANIFEST_NAME, SPECTROGRAMS, Manifest
from storage.remote.bucket import connect
from storage.remote.mirror import fetch, mirror_path
from storage.remote.store import RemoteStore, drop_damaged, push, upload_track
from storage.store import SpectrogramStore
from tests import helpers
from tests.helpers import free_port, tree
from tests.storage import hostile
from tests.tracks import write_track

SECRET = "averysecretkeythatstandsnowhereelse"
CONFIG = {"spectrogram": {"sample_rate": 8192}, "dtype": "float16"}
DATASET = {"kind": "folder", "root": "/songs"}

TRANSFER = """
import itertools, os, signal, sys
from pathlib import Path
import obstore
import storage.remote.store
from storage.remote.mirror import fetch
from storage.remote.store import push
direction, source, target, fatal_call, interval = sys.argv[1:]
storage.remote.store.RemoteStore.save_interval_seconds = float(interval)
calls = itertools.count(1)
def deadly(function):
    def call(*arguments, **options):
        if next(calls) == int(fatal_call):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
if direction == "push":
    obstore.put = deadly(obstore.put)
    push(Path(source), target)
else:
    obstore.get = deadly(obstore.get)
    fetch(source, Path(target))
"""


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """An S3 server without buckets: its address and its process."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        tempfile.NamedTemporaryFile("r") as log,
        Path(log.name).open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            while not (address := re.search(r"http://127\.0\.0\.1:\d+", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.02)
            yield address[0], process
        finally:
            process.kill()


def use(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set what a user sets in the environment, and nothing else; returns the URL of a new bucket."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")).close()
    return f"s3://{name}"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as (address, _):
        yield address


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL in a bucket of its own, with nothing there."""
    return f"{use(server, monkeypatch)}/some/folder/songs.zarr"


def arrays(seed: int, frames: int = 200) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return {name: generator.random((2, frames, 8)).astype(np.float16) for name in SPECTROGRAMS}


def add_track(store: SpectrogramStore, track_id: str, seed: int, split: str = "train", frames: int = 200) -> None:
    values = arrays(seed, frames)
    store.add(write_track(store.path, track_id, name=f"Name of {track_id}", split=split, seconds=1, arrays=values))
    store.save()


def local_store(path: Path, tracks: int = 0, frames: int = 200) -> SpectrogramStore:
    store = SpectrogramStore.open_or_create(path, config=CONFIG, dataset=DATASET, tool="test")
    for number in range(tracks):
        add_track(store, f"t-{number:03d}", number, frames=frames)
    return store


@pytest.fixture
def local(tmp_path: Path) -> SpectrogramStore:
    """Three tracks of training, one of validation, one of testing."""
    store = local_store(tmp_path / "local.zarr", 3)
    add_track(store, "v-0", 10, "valid")
    add_track(store, "x-0", 11, "test")
    return store


def objects(url: str) -> dict[str, bytes]:
    bucket = connect(url)
    return {
        entry["path"]: bytes(obstore.get(bucket, entry["path"]).bytes()) for entry in obstore.list(bucket).collect()
    }


def one_line(action: Callable[[], object], *parts: str) -> str:
    """Message of the `UserError` that `action` raises, which names all `parts` and no secret."""
    message = helpers.one_line(action, *parts)
    assert SECRET not in message
    return message


def flip_a_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage_object(url: str, key: str, change: Callable[[bytes], bytes] = flip_a_byte) -> None:
    bucket = connect(url)
    obstore.put(bucket, key, change(bytes(obstore.get(bucket, key).bytes())))


# Round trips


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


# A worker anywhere


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


# Strangers' buckets


def test_a_record_that_leads_elsewhere_is_refused_by_name_and_nothing_is_written(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    push(local.path, url)
    outside = tmp_path / "outside"
    bucket = connect(url)
    written = bytes(obstore.get(bucket, MANIFEST_NAME).bytes())
    for change in hostile.records(outside).values():
        obstore.put(bucket, MANIFEST_NAME, hostile.spoil(written, "t-001", change))
        one_line(lambda: fetch(url, tmp_path / "cache"), MANIFEST_NAME, "'t-001'")
        one_line(lambda: push(local.path, url), MANIFEST_NAME, "'t-001'")
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["local.zarr"]
    assert any("'t-001'" in problem.what for problem in RemoteStore.open(url, accept_edited=True).problems())
    assert drop_damaged(url) == ["Name of t-001"]
    assert sorted(RemoteStore.open(url).manifest.tracks) == ["t-000", "t-002", "v-0", "x-0"]


# Kills


def kill_at_call(number: int, direction: str, source: object, target: object, interval: float = 1000) -> None:
    """Start a transfer that kills itself, -9, at a call of the object store, while other threads have theirs."""
    command = [sys.executable, "-c", TRANSFER, direction, str(source), str(target), str(number), str(interval)]
    assert subprocess.run(command).returncode == -signal.SIGKILL


TRACKS = 24


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return local_store(tmp_path_factory.mktemp("many") / "many.zarr", TRACKS)


def older_version(path: Path) -> SpectrogramStore:
    """A store of `many`'s first 10 tracks, of which the first five are others, and of one that is in it no longer."""
    store = local_store(path)
    for number in range(10):
        add_track(store, f"t-{number:03d}", number + (500 if number < 5 else 0))
    add_track(store, "t-999", 1)
    return store


UNCHANGED = {f"t-{number:03d}" for number in range(5, 10)}


@pytest.mark.parametrize("call", [1, 2, 30, 100])
def test_a_killed_push_leaves_a_whole_store_and_the_next_one_ends_the_work(
    many: SpectrogramStore, url: str, tmp_path: Path, call: int
) -> None:
    old = older_version(tmp_path / "old.zarr")
    push(old.path, url)
    kill_at_call(call, "push", many.path, url)
    killed = RemoteStore.open(url)
    assert killed.problems() == []
    assert set(killed.manifest.tracks) == (set(old.manifest.tracks) if call == 1 else UNCHANGED)
    assert push(many.path, url) == TRACKS - len(UNCHANGED)
    found = objects(url)
    assert {key: content for key, content in found.items() if "t-999" not in key} == tree(many.path)


def test_a_killed_push_goes_on_with_what_the_manifest_named_last(many: SpectrogramStore, url: str) -> None:
    push(local_store(many.path.with_name("empty.zarr")).path, url)
    kill_at_call(150, "push", many.path, url, interval=0)
    killed = RemoteStore.open(url)
    assert killed.problems() == []
    assert 1 <= len(killed.manifest.tracks) < TRACKS
    assert push(many.path, url) == TRACKS - len(killed.manifest.tracks)
    assert objects(url) == tree(many.path)


@pytest.mark.parametrize("call", [1, 3, 60, 100])
def test_a_fetch_killed_in_the_middle_leaves_what_is_whole_and_the_next_one_goes_on(
    many: SpectrogramStore, url: str, tmp_path: Path, call: int
) -> None:
    push(many.path, url)
    cache = tmp_path / "cache"
    folder = mirror_path(url, cache)
    old = older_version(tmp_path / "old.zarr")
    shutil.copytree(old.path, folder)
    kill_at_call(call, "fetch", url, cache)
    opened = SpectrogramStore.open(folder)
    assert set(opened.manifest.tracks) == (set(old.manifest.tracks) if call == 1 else UNCHANGED)
    assert opened.damaged_shards() == []

    expected = tree(many.path)
    arrived = [
        path
        for key, content in expected.items()
        if "/c/" in key and (path := folder / key).exists() and path.read_bytes() == content
    ]
    numbers = [path.stat().st_ino for path in arrived]
    assert arrived
    assert fetch(url, cache) == folder
    assert tree(folder) == expected
    assert [path.stat().st_ino for path in arrived] == numbers


def test_a_first_fetch_that_is_killed_is_no_store_yet(many: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(many.path, url)
    kill_at_call(100, "fetch", url, tmp_path)
    folder = mirror_path(url, tmp_path)
    one_line(lambda: SpectrogramStore.open(folder), "no spectrogram store")
    assert list(folder.rglob("c/0/0/0"))
    assert tree(fetch(url, tmp_path)) == tree(many.path)


# Damage


@pytest.mark.parametrize(
    "change", [flip_a_byte, lambda content: content[:-1], lambda content: b""], ids=["flipped", "truncated", "empty"]
)
def test_a_damaged_object_is_noticed_named_and_replaced_by_the_next_push(
    local: SpectrogramStore, url: str, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    push(local.path, url)
    damage_object(url, "train/t-001/vocals/c/0/0/0", change)
    one_line(lambda: fetch(url, tmp_path / "cache"), url, "1 of 5 tracks", "'Name of t-001'", "store verify")
    copy = SpectrogramStore.open(mirror_path(url, tmp_path / "cache"))
    assert sorted(copy.manifest.tracks) == ["t-000", "t-002", "v-0", "x-0"]
    assert copy.damaged_shards() == []

    (problem,) = RemoteStore.open(url).problems()
    assert problem.track == "Name of t-001"
    assert "train/t-001/vocals/c/0/0/0" in problem.what
    assert drop_damaged(url) == ["Name of t-001"]
    assert not any("t-001" in key for key in objects(url))
    assert push(local.path, url) == 1
    assert tree(fetch(url, tmp_path / "cache")) == tree(local.path)


@pytest.mark.parametrize(
    "key", ["train/t-001/mixture/c/0/0/0", "train/t-001/zarr.json", "train/t-001/mixture/zarr.json"]
)
def test_a_deleted_object_is_noticed_and_named(local: SpectrogramStore, url: str, tmp_path: Path, key: str) -> None:
    push(local.path, url)
    obstore.delete(connect(url), key)
    one_line(lambda: fetch(url, tmp_path / "cache"), "1 of 5 tracks", "'Name of t-001'")
    assert [problem.what for problem in RemoteStore.open(url).problems()] == [f"{key}: missing"]


def test_a_flipped_byte_in_the_copy_is_mended_by_the_next_fetch(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    push(local.path, url)
    copy = fetch(url, tmp_path / "cache")
    helpers.flip(copy / "valid/v-0/accompaniment/c/0/0/0")
    (copy / "train/t-000/mixture/c/0/0/0").unlink()
    (copy / "train/t-002/zarr.json").unlink()
    (copy / "train/stray").mkdir()
    assert fetch(url, tmp_path / "cache") == copy
    assert tree(copy) == tree(local.path)
    assert not (copy / "train/stray").exists()


def test_a_damaged_manifest_in_the_copy_is_replaced(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(local.path, url)
    copy = fetch(url, tmp_path / "cache")
    (copy / MANIFEST_NAME).write_text("{")
    fetch(url, tmp_path / "cache")
    assert tree(copy) == tree(local.path)


def test_a_flipped_byte_in_the_local_store_is_not_uploaded_and_all_else_is(local: SpectrogramStore, url: str) -> None:
    shard = local.path / "train/t-001/mixture/c/0/0/0"
    helpers.flip(shard)
    one_line(lambda: push(local.path, url), "1 tracks not uploaded", str(shard))
    remote = RemoteStore.open(url)
    assert sorted(remote.manifest.tracks) == ["t-000", "t-002", "v-0", "x-0"]
    assert remote.problems() == []


def test_an_edited_manifest_is_refused_and_repaired(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(local.path, url)
    shard = b"train/t-001/vocals/c/0/0/0"
    damage_object(url, MANIFEST_NAME, lambda content: content.replace(shard, shard.replace(b"t-001", b"t-000")))
    for action in (
        lambda: RemoteStore.open(url),
        lambda: fetch(url, tmp_path / "cache"),
        lambda: push(local.path, url),
    ):
        one_line(action, f"{url}/{MANIFEST_NAME}", "edited")
    assert {problem.track for problem in RemoteStore.open(url, accept_edited=True).problems()} == {"", "Name of t-001"}
    drop_damaged(url)
    assert push(local.path, url) == 1
    assert tree(fetch(url, tmp_path / "cache")) == tree(local.path)


def test_a_manifest_that_is_none_is_one_line(local: SpectrogramStore, url: str) -> None:
    push(local.path, url)
    obstore.put(connect(url), MANIFEST_NAME, b"<html>")
    one_line(lambda: RemoteStore.open(url), f"{url}/{MANIFEST_NAME}", "damaged manifest")


def test_a_manifest_larger_than_any_is_not_read(local: SpectrogramStore, url: str) -> None:
    push(local.path, url)
    obstore.put(connect(url), MANIFEST_NAME, bytes(MOST_READ_BYTES + 1))
    one_line(lambda: RemoteStore.open(url), f"{url}/{MANIFEST_NAME}", "268,435,457 bytes are no manifest")


# Several writers


@pytest.mark.parametrize("conditional", ["etag", "disabled"])
def test_of_two_writers_the_second_is_refused_and_the_first_ones_manifest_stays(
    local: SpectrogramStore, url: str, monkeypatch: pytest.MonkeyPatch, conditional: str
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", conditional)
    push(local.path, url)
    first, second = RemoteStore.open(url), RemoteStore.open(url)
    first.drop(["t-000"])
    one_line(lambda: second.drop(["t-001"]), url, "another process")
    assert sorted(RemoteStore.open(url).manifest.tracks) == ["t-001", "t-002", "v-0", "x-0"]
    first.drop(["t-002"])
    assert sorted(RemoteStore.open(url).manifest.tracks) == ["t-001", "v-0", "x-0"]


@pytest.mark.parametrize("conditional", ["etag", "disabled"])
def test_of_two_creators_the_second_is_refused(
    local: SpectrogramStore, url: str, monkeypatch: pytest.MonkeyPatch, conditional: str
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", conditional)
    empty = Manifest.load(local.path).model_copy(update={"tracks": {}})
    first, second = (RemoteStore(url, connect(url), empty.model_copy(), None) for _ in range(2))
    first.manifest.tracks = {"t-000": local.manifest.tracks["t-000"]}
    first.save()
    one_line(second.save, "another process")
    assert list(RemoteStore.open(url).manifest.tracks) == ["t-000"]


def test_a_manifest_whose_answer_got_lost_counts_as_saved(local: SpectrogramStore, url: str) -> None:
    push(local.path, url)
    remote, lost = RemoteStore.open(url), RemoteStore.open(url)
    lost.drop(["t-000"])
    remote.drop(["t-000"])
    remote.drop(["t-001"])
    assert sorted(RemoteStore.open(url).manifest.tracks) == ["t-002", "v-0", "x-0"]


def test_the_sweep_leaves_young_strays_to_their_writer_and_deletes_old_ones(
    local: SpectrogramStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(local.path, url)
    expected = objects(url)
    add_track(local, "t-900", 5)
    upload_track(local.path / "train/t-900", url, local.manifest.tracks["t-900"])
    obstore.put(connect(url), "notes.txt", b"of somebody else")
    RemoteStore.open(url).sweep()
    assert "train/t-900/mixture/c/0/0/0" in objects(url)
    monkeypatch.setattr(storage.remote.store, "STRAY_AGE", timedelta(seconds=-5))
    RemoteStore.open(url).sweep()
    assert objects(url) == expected | {"notes.txt": b"of somebody else"}


def test_two_fetches_do_not_write_the_same_copy_at_once(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(local.path, url)
    with store_lock(mirror_path(url, tmp_path / "cache")):
        one_line(lambda: fetch(url, tmp_path / "cache"), f"process {os.getpid()}")
    fetch(url, tmp_path / "cache")


# Refusals


def test_a_store_of_other_settings_or_other_songs_is_not_overwritten(
    local: SpectrogramStore, url: str, tmp_path: Path
) -> None:
    push(local.path, url)
    before = objects(url)
    other = SpectrogramStore.open_or_create(
        tmp_path / "other.zarr", config={**CONFIG, "dtype": "float32"}, dataset=DATASET, tool="test"
    )
    one_line(lambda: push(other.path, url), url, "another configuration", "'float16'", "'float32'")
    strangers = local_store(tmp_path / "strangers.zarr")
    add_track(strangers, "z-1", 1)
    one_line(lambda: push(strangers.path, url), url, "other URL")
    part = fetch(url, tmp_path / "cache", splits=("train", "valid"))
    one_line(lambda: push(part, url), url, "test songs")
    assert objects(url) == before


@pytest.mark.parametrize("action", ["open", "push", "fetch"])
@pytest.mark.parametrize("case", ["no bucket", "refused", "no credentials", "denied"])
def test_what_cannot_be_reached_is_one_line_without_secrets(
    local: SpectrogramStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, action: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    if case == "no bucket":
        url, parts = "s3://no-such-bucket/name.zarr", ["no such bucket"]
    elif case == "refused":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@{address}")
        parts = ["no answer", address, "AWS_ENDPOINT_URL"]
    elif case == "no credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://{address}")
        parts = ["no credentials", "AWS_ACCESS_KEY_ID"]
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", denying_server())
        parts = ["access denied", "credentials"]
    actions: dict[str, Callable[[], object]] = {
        "open": lambda: RemoteStore.open(url),
        "push": lambda: push(local.path, url),
        "fetch": lambda: fetch(url, tmp_path / "cache"),
    }
    one_line(actions[action], url, *parts)


def denying_server() -> str:
    """Address of a server that answers every request with 403."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Denying(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listener = HTTPServer(("127.0.0.1", 0), Denying)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{listener.server_port}"


def test_a_server_that_never_answers_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(storage.remote.bucket._CLIENT, "read_timeout", "300ms")
    monkeypatch.setitem(storage.remote.bucket._RETRIES, "retry_timeout", timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        one_line(lambda: RemoteStore.open(url), "no answer")


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ("s3://bucket", "s3://bucket/name.zarr"),
        ("s3:///name.zarr", "s3://bucket/name.zarr"),
        ("ftp://host/name.zarr", "s3://bucket/name.zarr"),
        (f"s3://someone:{SECRET}@bucket/name.zarr", "no credentials in URLs"),
    ],
)
def test_a_wrong_url_is_one_line(wrong: str, part: str) -> None:
    one_line(lambda: RemoteStore.open(wrong), part)


def test_no_store_is_one_line_and_leaves_no_copy(url: str, tmp_path: Path) -> None:
    one_line(lambda: fetch(url, tmp_path / "cache"), url, "no spectrogram store")
    one_line(lambda: RemoteStore.open(url), url, "no spectrogram store")
    assert not (tmp_path / "cache").exists()
    assert objects(url) == {}


def test_a_server_that_dies_in_the_middle_is_one_line_and_costs_nothing_that_arrived(
    many: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as (address, process):
        url = f"{use(address, monkeypatch)}/name.zarr"
        push(many.path, url)

        def stop(done: int, total: int) -> None:
            if done > total / 4:
                process.kill()

        one_line(lambda: fetch(url, tmp_path, on_bytes=stop), url, "no answer")
    copy = mirror_path(url, tmp_path)
    assert not (copy / MANIFEST_NAME).exists()
    assert list(copy.rglob("c/0/0/0"))


def test_no_room_for_the_copy_is_one_line_with_the_need(
    local: SpectrogramStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(local.path, url)
    monkeypatch.setattr(storage.remote.mirror, "free_bytes", lambda path: 1000)
    one_line(lambda: fetch(url, tmp_path / "cache"), str(tmp_path), "0 MB are free")
    assert not list((tmp_path / "cache").rglob("c/0/0/0"))
    monkeypatch.undo()


def test_no_secret_is_ever_stored(local: SpectrogramStore, url: str, tmp_path: Path) -> None:
    push(local.path, url)
    copy = fetch(url, tmp_path / "cache")
    stored = [*objects(url).values(), *tree(copy).values()]
    assert len(stored) > 50
    assert not any(SECRET.encode() in content or b"someone" in content for content in stored)
