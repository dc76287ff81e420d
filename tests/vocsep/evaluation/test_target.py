import shutil
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from storage.errors import UserError
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.evaluation.evaluation_songs import add_model, resolve_evaluation
from vocsep.datasets.layouts import open_dataset
from vocsep.evaluation.subjects import FolderSubject, ModelSubject
from vocsep.models.registry import BUNDLED

Array = NDArray[Any]


@pytest.fixture(scope="module")
def models(demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of one model that was trained on the demo's training songs; without a champion."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    names = {split: [track.name for track in demo_store.tracks(split)] for split in ("train", "valid")}
    add_model(folder, names)
    return folder


def with_champion(folder: Path, versions: int = 2, champion: int = 1) -> Path:
    """A registry of this many models."""
    for seed in range(versions):
        add_model(folder, seed=seed)
    ModelRegistry(folder).promote(champion)
    return folder


def test_dataset_is_the_one_that_the_store_was_made_from_unless_named(
    models: Path, demo_root: Path, demo_store: SpectrogramStore
) -> None:
    for dataset in (None, demo_root):
        target = resolve_evaluation(models, "latest", dataset, "auto", "test", demo_store.path)
        assert list(target.models) == list(target.subjects) == ["model", "bundled"]
        assert target.models["model"].version == 1
        assert target.subjects["model"] == ModelSubject(models.resolve(), "1")
        assert target.label == "model0001"
        assert str(models / "0001") in target.titles["model"]
        assert target.split == "test"
        assert target.dataset.root == demo_root.resolve()
        assert target.songs == tuple(open_dataset(demo_root).split("test"))
        assert len(target.songs) == 2


def test_model_folder_outside_the_registry_is_named_by_its_path(models: Path, demo_root: Path, tmp_path: Path) -> None:
    target = resolve_evaluation(
        tmp_path / "none", str(models / "0001"), demo_root, "auto", "test", tmp_path / "no.zarr"
    )
    assert target.models["model"].version is None
    subject = target.subjects["model"]
    assert isinstance(subject, ModelSubject)
    assert subject.model == str((models / "0001").resolve())
    assert str(models / "0001") in target.titles["model"]


def test_model_is_named_by_its_number_so_that_a_newer_one_or_a_moved_champion_changes_nothing(
    demo_root: Path, tmp_path: Path
) -> None:
    models = with_champion(tmp_path / "models")
    for name, version in (("latest", "2"), ("champion", "1")):
        target = resolve_evaluation(models, name, demo_root, "auto", "test", tmp_path / "no.zarr")
        assert target.subjects["model"] == ModelSubject(models.resolve(), version)


def rows_of(demo_root: Path, models: Path, model: str, **options: Any) -> dict[str, str]:
    """Row to the name of the model, or the folder; the bundled model is next to all."""
    target = resolve_evaluation(models, model, demo_root, "auto", "test", models / "no.zarr", **options)
    assert list(target.titles) == list(target.subjects)
    rows = {
        row: str(subject.folder) if isinstance(subject, FolderSubject) else subject.model
        for row, subject in target.subjects.items()
    }
    assert rows.pop("bundled") == str(BUNDLED)
    return rows


def test_champion_stands_beside_the_model_where_it_is_another_one(demo_root: Path, tmp_path: Path) -> None:
    models = with_champion(tmp_path / "models")
    assert rows_of(demo_root, models, "latest") == {"model": "2", "champion": "1"}
    assert list(rows_of(demo_root, models, "latest")) == ["model", "champion"]
    for name in ("1", "champion"):
        assert rows_of(demo_root, models, name) == {"model": "1"}
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(models / "0002", elsewhere)
    assert rows_of(demo_root, models, str(elsewhere)) == {"model": str(elsewhere), "champion": "1"}


def test_champion_named_by_its_folder_is_not_compared_with_itself(demo_root: Path, tmp_path: Path) -> None:
    models = with_champion(tmp_path / "models")
    assert list(rows_of(demo_root, models, str(models / "0001"))) == ["model"]


def test_named_model_stands_in_the_champions_place(demo_root: Path, tmp_path: Path) -> None:
    models = with_champion(tmp_path / "models", versions=3)
    assert rows_of(demo_root, models, "latest", against="2") == {"model": "3", "against": "2"}
    assert rows_of(demo_root, models, "latest", against="champion") == {"model": "3", "against": "1"}


def test_folder_of_estimates_stands_in_the_models_place(demo_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "estimates"
    folder.mkdir()
    assert rows_of(demo_root, tmp_path / "none", "latest", estimates=folder) == {"model": str(folder)}
    models = with_champion(tmp_path / "models")
    assert rows_of(demo_root, models, "latest", estimates=folder) == {"model": str(folder), "champion": "1"}
    assert rows_of(demo_root, models, "7", estimates=folder, against="2") == {"model": str(folder), "against": "2"}
    target = resolve_evaluation(models, "latest", demo_root, "auto", "train", models / "no.zarr", estimates=folder)
    assert target.titles["model"] == str(folder)
    assert target.label == "estimates"
    assert target.seen_in_training == []


def test_songs_that_the_model_was_trained_or_validated_on_are_named(models: Path, demo_store: SpectrogramStore) -> None:
    for split, count in (("train", 3), ("valid", 1), ("test", 0)):
        target = resolve_evaluation(models, "1", None, "auto", split, demo_store.path)
        expected = sorted(track.name for track in demo_store.tracks(split)) if count else []
        assert target.seen_in_training == expected
        assert len(expected) == count


def test_model_that_does_not_say_what_it_was_trained_on_has_seen_nothing(
    demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    add_model(tmp_path / "models")
    target = resolve_evaluation(tmp_path / "models", "1", None, "auto", "train", demo_store.path)
    assert target.seen_in_training == []


def test_missing_model_dataset_store_or_split_is_one_line_that_names_it(
    models: Path, demo_root: Path, demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    named: tuple[Path, str, Path | None, str, str, Path] = (models, "1", demo_root, "auto", "test", demo_store.path)
    wrong: list[tuple[str, tuple[Path, str, Path | None, str, str, Path], dict[str, Any]]] = [
        ("no model yet", (tmp_path / "none", "latest", *named[2:]), {}),
        ("7: no such model", (models, "7", *named[2:]), {}),
        ("7: no such model", named, {"against": "7"}),
        ("gone: no such folder of estimates", named, {"estimates": tmp_path / "gone"}),
        ("gone: no such dataset", (models, "1", tmp_path / "gone", "auto", "test", demo_store.path), {}),
        ("'cassette' is no kind", (models, "1", demo_root, "cassette", "test", demo_store.path), {}),
        ("no.zarr: no spectrogram store", (models, "1", None, "auto", "test", tmp_path / "no.zarr"), {}),
        ("no songs in the encore split", (models, "1", demo_root, "auto", "encore", demo_store.path), {}),
    ]
    for message, arguments, options in wrong:
        with pytest.raises(UserError, match=message) as error:
            resolve_evaluation(*arguments, **options)
        assert "\n" not in str(error.value)
