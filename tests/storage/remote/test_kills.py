"""Copies that are killed at any of their calls."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.remote.mirror import fetch, mirror_path
from storage.remote.store import RemoteStore, push
from storage.store import SpectrogramStore
from tests.helpers import tree
from tests.storage.remote.buckets import TRACKS, TRANSFER, add_track, local_store, objects, one_line


def kill_at_call(number: int, direction: str, source: object, target: object, interval: float = 1000) -> None:
    """Start a transfer that kills itself, -9, at a call of the object store, while other threads have theirs."""
    command = [sys.executable, "-c", TRANSFER, direction, str(source), str(target), str(number), str(interval)]
    assert subprocess.run(command).returncode == -signal.SIGKILL


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
