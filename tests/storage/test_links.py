"""Links in stores and registries: what they lead to is never deleted, replaced or written into."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.errors import UserError
from storage.integrity import drop_damaged, problems
from storage.lock import lock_path, store_lock
from storage.manifest import SPECTROGRAMS
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from storage.track_writer import TEMPORARY_FOLDER
from tests.helpers import one_line, tree
from tests.tracks import new_store, write_track


def write(path: Path, key: str, split: str = "train") -> None:
    values = {name: np.ones((1, 10, 8), np.float16) for name in SPECTROGRAMS}
    store = new_store(path)
    store.add(write_track(path, key, split=split, arrays=values))
    store.save()


@pytest.fixture
def store(tmp_path: Path) -> SpectrogramStore:
    write(tmp_path / "s.zarr", "a-1")
    return SpectrogramStore.open(tmp_path / "s.zarr")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the user's, with files and folders that look like those of a store."""
    folder = tmp_path / "outside"
    for name in ("precious/file", "a-1/vocals/file", "file"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def discard(path: Path) -> None:
    SpectrogramStore.open(path).discard_unfinished()


@pytest.mark.parametrize("action", [drop_damaged, discard])
def test_links_among_leftovers_go_and_what_they_lead_to_stays(
    store: SpectrogramStore, outside: Path, action: Callable[[Path], object]
) -> None:
    before, whole = tree(outside), tree(store.path)
    (store.path / TEMPORARY_FOLDER).rmdir()
    (store.path / TEMPORARY_FOLDER).symlink_to(outside)
    (store.path / "train" / "linked").symlink_to(outside)
    (store.path / ".manifest.json.0123").symlink_to(outside / "file")
    sibling = store.path.with_name(f".{store.path.name}.unfinished-0123")
    sibling.symlink_to(outside)
    assert len(problems(store.path)) == 3
    action(store.path)
    assert tree(outside) == before
    assert tree(store.path) == whole
    assert not any(path.is_symlink() for path in [sibling, *store.path.rglob("*")])


def test_a_split_that_is_a_link_is_refused_by_whatever_writes(store: SpectrogramStore, outside: Path) -> None:
    before = tree(outside)
    (store.path / "valid").rename(store.path.parent / "moved")
    (store.path / "valid").symlink_to(outside)
    for action in (
        lambda: new_store(store.path),
        lambda: drop_damaged(store.path),
        lambda: SpectrogramStore.open(store.path).discard_unfinished(),
    ):
        one_line(action, store.path / "valid", "link")
    assert tree(outside) == before


def test_a_track_that_is_a_link_is_replaced_by_a_track_and_its_files_stay_where_they_are(
    store: SpectrogramStore, outside: Path
) -> None:
    track = store.path / "train" / "a-1"
    moved = outside / "a-1"
    shutil.rmtree(moved)
    track.rename(moved)
    track.symlink_to(moved)
    before = tree(outside)
    write(store.path, "a-1")
    assert tree(outside) == before
    assert not track.is_symlink()
    assert [entry.name for entry in (store.path / "train").iterdir() if entry.is_dir()] == ["a-1"]
    discard(store.path)
    assert problems(store.path) == []


def test_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_not_written(tmp_path: Path, outside: Path) -> None:
    models, file = tmp_path / "models", next(path for path in outside.rglob("*") if path.is_file())
    before = tree(outside)
    registry = ModelRegistry(models)
    registry.add({"w": np.ones(3, np.float32)}, {})
    (models / ".lock").symlink_to(file)
    for action in (lambda: registry.promote(1), lambda: registry.add({}, {}), lambda: registry.prune(1)):
        one_line(action, models / ".lock")
    assert tree(outside) == before
    store = tmp_path / "s.zarr"
    lock_path(store).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="link"), store_lock(store):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_folders_of_others_among_models_are_no_versions_and_stay(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    for _ in range(3):
        registry.add({"w": np.zeros(1, np.float32)}, {})
    for name in ("2023", "photos"):
        (registry.path / name).mkdir()
        (registry.path / name / "picture.jpg").write_text("mine")
    # Other spellings of a version's number, and numbers that leave no room for more.
    for name in ("3", "00000003", "\u0660\u0660\u0660\u0663", "9" * 9, "9" * 200):
        shutil.copytree(registry.path / "0003", registry.path / name)
    assert registry.versions() == [1, 2, 3]
    assert registry.open("latest").version == 3
    assert registry.add({"w": np.zeros(1, np.float32)}, {}).version == 2024
    assert registry.prune(1) == [1, 2, 3]
    assert (registry.path / "2023" / "picture.jpg").read_text() == "mine"
    assert {entry.name for entry in registry.path.iterdir()} >= {"2023", "photos", "3", "9" * 9, "2024"}


def test_pruning_models_follows_no_links_and_deletes_nothing_of_others(tmp_path: Path, outside: Path) -> None:
    before = tree(outside)
    registry = ModelRegistry(tmp_path / "models")
    for _ in range(3):
        registry.add({"w": np.zeros(1, np.float32)}, {})
    (registry.path / "0001").rename(outside / "0001")
    (registry.path / "0001").symlink_to(outside / "0001")
    (registry.path / f".deleted-{'0' * 32}").symlink_to(outside)
    (registry.path / f".0002.{'0' * 8}").mkdir()
    (registry.path / ".git").mkdir()
    assert registry.prune(1) == [1, 2]
    assert {name: content for name, content in tree(outside).items() if not name.startswith("0001")} == before
    assert (outside / "0001" / "model.json").is_file()
    assert sorted(entry.name for entry in registry.path.iterdir()) == [".git", "0003"]
