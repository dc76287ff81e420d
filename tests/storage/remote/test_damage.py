"""Damaged and hostile buckets: noticed, named, replaced."""

from collections.abc import Callable
from pathlib import Path

import obstore
import pytest

from storage.files import MOST_READ_BYTES
from storage.manifest import MANIFEST_NAME
from storage.remote.bucket import connect
from storage.remote.mirror import fetch, mirror_path
from storage.remote.store import RemoteStore, drop_damaged, push
from storage.store import SpectrogramStore
from tests import helpers
from tests.helpers import tree
from tests.storage import hostile
from tests.storage.remote.buckets import damage_object, flip_a_byte, objects, one_line


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
