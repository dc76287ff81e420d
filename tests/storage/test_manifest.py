"""Manifests: damaged ones, and the digest of what a store holds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import UserError
from storage.manifest import MANIFEST_NAME, Manifest, SourceFile
from storage.store import SpectrogramStore
from tests.helpers import one_line
from tests.storage.stores import CONFIG, filled_store, new_store, spectrograms, write


def manifest_text(store: SpectrogramStore) -> str:
    return (store.path / MANIFEST_NAME).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "7",
        lambda text: "{}",
        lambda text: "\0" * len(text),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"format": "vocsep-spectrograms"', '"format": "another"'),
        lambda text: text.replace("8192", "8193"),
        lambda text: text.replace('"frames": 300', '"frames": "many"'),
        lambda text: text.replace('"frames": 300,', ""),
        lambda text: text.replace('"tool"', '"tools"'),
    ],
)
def test_damaged_manifest_gives_one_line_that_names_it(tmp_path: Path, damage: Callable[[str], str]) -> None:
    store = filled_store(tmp_path / "s.zarr")
    text = damage(manifest_text(store))
    assert text != manifest_text(store)
    (store.path / MANIFEST_NAME).write_text(text, encoding="utf-8")
    for open_it in (SpectrogramStore.open, new_store):
        one_line(lambda open_it=open_it: open_it(store.path), store.path / MANIFEST_NAME)  # type: ignore[misc]


def test_manifest_that_is_not_utf_8_gives_one_line(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    (store.path / MANIFEST_NAME).write_bytes(b"\xff\xfe" + manifest_text(store).encode())
    one_line(lambda: SpectrogramStore.open(store.path), store.path / MANIFEST_NAME)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_character_of_the_manifest_gives_at_most_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.zarr"
    if not path.exists():
        filled_store(path)
    file = path / MANIFEST_NAME
    text = file.read_text(encoding="utf-8")
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from('0123456789"{}[],:-. abcx/'))
    try:
        file.write_text(text[:position] + character + text[position + 1 :], encoding="utf-8")
        for open_it in (SpectrogramStore.open, new_store):
            message = ""
            try:
                open_it(path)
            except UserError as error:
                message = str(error)
            assert "\n" not in message
    finally:
        file.write_text(text, encoding="utf-8")


def source_file(path: str, modified_ns: int) -> SourceFile:
    return SourceFile(path=path, bytes=1, modified_ns=modified_ns, sha256="0" * 64)


def digest_of(path: Path, order: tuple[int, ...] = (0, 1), tag: int = 0, **changes: Any) -> str:
    store = new_store(path, **changes)
    for seed in order:
        store.add(write(store, f"t-{seed}", spectrograms(seed), sources=(source_file(f"/{path.name}", tag),)))
    store.save()
    return Manifest.load(path).data_digest


def test_data_digest_depends_on_neither_paths_nor_times_nor_order(tmp_path: Path) -> None:
    first = digest_of(tmp_path / "one.zarr")
    moved = {"kind": "folder", "root": "/elsewhere"}
    assert digest_of(tmp_path / "two.zarr", order=(1, 0), tag=5, dataset=moved, tool="newer") == first


def test_data_digest_changes_with_the_configuration_a_track_and_one_byte(tmp_path: Path) -> None:
    first = digest_of(tmp_path / "one.zarr")
    assert digest_of(tmp_path / "two.zarr", config=CONFIG | {"dtype": "float32"}) != first
    assert digest_of(tmp_path / "three.zarr", order=(0,)) != first
    store = SpectrogramStore.open(tmp_path / "one.zarr")
    arrays = spectrograms(1)
    arrays["vocals"].view(np.uint8)[1, 200, 3] ^= 1
    store.add(write(store, "t-1", arrays, sources=(source_file("/one.zarr", 0),)))
    assert store.manifest.data_digest != first


def test_demo_store_is_intact_and_copies_of_it_have_its_digest(
    demo_store: SpectrogramStore, copy_of_demo_store: Callable[[], SpectrogramStore]
) -> None:
    assert demo_store.damaged_shards() == []
    assert copy_of_demo_store().manifest.data_digest == demo_store.manifest.data_digest


def test_manifest_is_json_with_tracks_in_order_of_their_ids(tmp_path: Path) -> None:
    content = json.loads(manifest_text(filled_store(tmp_path / "s.zarr")))
    assert list(content["tracks"]) == ["a-1", "b-2", "c-3"]
