"""Several writers of one store in a bucket, and of one copy."""

import os
from datetime import timedelta
from pathlib import Path

import obstore
import pytest

import storage.remote.bucket
import storage.remote.mirror
import storage.remote.store
from storage.lock import store_lock
from storage.manifest import Manifest
from storage.remote.bucket import connect
from storage.remote.mirror import fetch, mirror_path
from storage.remote.store import RemoteStore, push, upload_track
from storage.store import SpectrogramStore
from tests.storage.remote.buckets import add_track, objects, one_line


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
