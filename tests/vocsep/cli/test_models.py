"""`vocsep models ...` as a user calls it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from storage.errors import UserError
from storage.registry import ModelRegistry
from tests.helpers import bundled_scores
from tests.vocsep.training.training_runs import small_store, train
from vocsep.cli.main import app
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_model, training_digest


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Four models that differ in seed and songs; 1 was the champion before 2."""
    registry = ModelRegistry(tmp_path / "models")
    for number in range(1, 5):
        store = small_store(tmp_path / f"{number}.zarr", ("train", "train", "valid"), seed=number % 2)
        description = describe_model(TrainConfig(), store) | {
            "metrics": {"valid_sdr_db": 4.0 + number, "valid_floor_sdr_db": 0.0},
            "training": {"steps_done": 100 * number, "seed": number},
        }
        registry.add({"w": np.full(3, number, np.float32)}, description)
    registry.promote(1)
    registry.promote(2)
    return registry


def models(registry: ModelRegistry, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments, "--models", str(registry.path)])


def report(registry: ModelRegistry, name: str, version: int, score: float, songs: object, split: str = "test") -> None:
    """What an evaluation leaves next to the registry."""
    digest = registry.open(str(version)).description["weights_sha256"]
    rows = {"model": {"vocals": {"SDR": {"median": score, "mean": 0.0}}}}
    summary = {"weights_sha256": digest, "rows": rows, "songs": songs, "split": split}
    folder = registry.path.parent / "reports" / f"{name}-model"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))


def test_list_shows_all_models_marks_the_champion_and_names_a_damaged_one(registry: ModelRegistry) -> None:
    (registry.path / "0003" / "model.safetensors").write_bytes(b"damaged")
    (registry.path / "0004" / "model.json").write_text("{}")
    for number in range(30):  # a long list of reports, the newest of them the last; the others count where it is none
        report(registry, f"2026010{number // 10}-0000{number % 10:02}", 1, 3.0 + number / 100, 20 + number)
    report(registry, "20260109-000000", 1, 9.0, 50, split="valid")
    report(registry, "20260109-000001", 1, 8.0, "many")
    for number, text in enumerate(("", "[]", "{}", '{"rows": []}', '{"rows": {"model": 1e999}}', "[" * 100_000)):
        (folder := registry.path.parent / "reports" / f"20260109-00001{number}").mkdir()
        (folder / "summary.json").write_text(text)
    result = models(registry, "list", "--reports", str(registry.path.parent / "reports"))
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()[:1]}
    assert lines["1"][1] != "*"
    assert lines["2"][1] == "*"
    assert lines["1"][-4:] == ["100", "5.00", "3.29", "49"]
    assert lines["2"][-3:] == ["200", "6.00", "-"]
    assert lines["3"][1:] == lines["4"][1:] == ["damaged"]
    # What comes with vocsep tells its scores itself.
    assert lines["bundled"][-3:] == [*(f"{score:.2f}" for score in bundled_scores()), "25"]
    registry.add({"w": np.ones(3, np.float32)}, registry.open("1").description | {"created": "now\x1b[2J\nthen"})
    added = models(registry, "list").stdout
    assert "now [2J then" in added
    assert "\x1b" not in added
    assert "0003/model.safetensors" in result.stderr
    assert "0004/model.json" in result.stderr


def test_show_tells_where_a_model_comes_from_and_refuses_a_damaged_one(registry: ModelRegistry, tmp_path: Path) -> None:
    shown: dict[str, Any] = json.loads(models(registry, "show", "3").stdout)
    assert shown["version"] == 3
    assert shown["training"]["seed"] == 3
    assert shown["data"]["train"] == ["Song 1", "Song 2"]
    assert len(shown["data"]["digest"]) == len(shown["weights_sha256"]) == 64
    assert shown["versions"]["vocsep"]
    assert len(shown["versions"]["code"]) == 16
    assert json.loads(models(registry, "show").stdout)["version"] == 2
    (registry.path / "0003" / "model.safetensors").write_bytes(b"damaged")
    error = models(registry, "show", "3").exception
    assert isinstance(error, UserError)
    assert "0003" in str(error)


def test_compare_shows_what_differs_and_only_that(registry: ModelRegistry) -> None:
    text = models(registry, "compare", "1", "3").stdout
    assert "training.seed" in text
    assert "spectrogram" not in text
    assert "data.digest" not in text
    text = models(registry, "compare", "1", "2").stdout
    assert "data.digest" in text
    assert "vocsep evaluate --model 1 --against 2" in text


def test_promote_rollback_and_history(registry: ModelRegistry) -> None:
    assert models(registry, "promote", "4").exit_code == 0
    assert registry.champion() == 4
    assert [line.split()[0] for line in models(registry, "history").stdout.splitlines()] == ["1", "2", "4"]
    assert "2 is the champion again" in models(registry, "rollback").stdout
    assert registry.champion() == 2
    assert isinstance(models(registry, "promote", "9").exception, UserError)


def test_prune_says_first_what_it_would_delete(registry: ModelRegistry) -> None:
    assert "would delete 1 versions: 3" in models(registry, "prune", "--keep", "1", "--dry-run").stdout
    assert registry.versions() == [1, 2, 3, 4]
    assert "deleted 1 versions: 3" in models(registry, "prune", "--keep", "1").stdout
    assert registry.versions() == [1, 2, 4]


@pytest.mark.parametrize("command", ["history", "rollback", "prune"])
def test_without_models_it_is_one_line(tmp_path: Path, command: str) -> None:
    error = models(ModelRegistry(tmp_path / "none"), command).exception
    assert isinstance(error, UserError)
    assert "no model yet" in str(error)
    assert not (tmp_path / "none").exists()


def test_trained_model_says_songs_settings_seed_budget_code_and_scores(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s.zarr", ("train", "train", "valid"))
    train(store, tmp_path, steps=3, seed=7)
    shown = json.loads(models(ModelRegistry(tmp_path / "models"), "show", "1").stdout)
    assert shown["data"]["digest"] == training_digest(store)
    assert (shown["training"]["seed"], shown["training"]["steps"], shown["training"]["steps_done"]) == (7, 3, 3)
    assert shown["training"]["run"]["folder"].startswith(str(tmp_path))
    assert {"valid_sdr_db", "valid_floor_sdr_db"} <= shown["metrics"].keys()
    assert {"vocsep", "code", "torch", "python"} <= shown["versions"].keys()


def test_promoting_says_what_it_did_and_promises_no_rollback_that_fails(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    assert "is already the champion" in models(registry, "promote", "2").stdout
    assert len(registry.history()) == 2
    assert "models rollback" in models(registry, "promote", "3").stdout
    assert models(registry, "rollback").exit_code == 0
    shutil.rmtree(registry.path / "0001")
    (registry.path / "0002" / "model.safetensors").write_bytes(b"damaged")
    assert "rollback" not in models(registry, "promote", "3").stdout
    assert isinstance(models(registry, "rollback").exception, UserError)
    (registry.path / "champion").unlink()
    first = models(registry, "promote", "4")
    assert first.exit_code == 0
    assert "rollback" not in first.stdout
