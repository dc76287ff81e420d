"""Fine-tuning a model, and which model becomes the champion."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import UserError
from storage.registry import WEIGHTS_NAME, ModelRegistry
from storage.store import SpectrogramStore
from tests.helpers import flip
from tests.vocsep.training.training_runs import quick, small_store, train, weights_of
from vocsep.models.networks import build_network
from vocsep.models.torch_network import load_network
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.training.description import describe_architecture, describe_model, training_digest
from vocsep.training.promotion import promote_if_better
from vocsep.training.validation import validate

TRAIN_AND_VALID = ("train", "train", "valid")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return small_store(tmp_path_factory.mktemp("training") / "store.zarr", TRAIN_AND_VALID)


@pytest.fixture(scope="module")
def tuned(store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry of one trained model."""
    folder = tmp_path_factory.mktemp("tuned")
    train(store, folder, steps=60, learning_rate=0.01)
    return folder


def test_fine_tuning_starts_from_the_weights_of_the_model(store: SpectrogramStore, tuned: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tuned / "models")
    held = registry.open("1")
    tiny: dict[str, Any] = {"steps": 1, "learning_rate": 1e-12, "warmup": 0}
    started = train(store, tmp_path, registry, fine_tune="1", **tiny)
    fresh = train(store, tmp_path, ModelRegistry(tmp_path / "models"), **tiny)
    held_sdr_db = held.description["metrics"]["valid_sdr_db"]
    assert started.valid_sdr_db == pytest.approx(held_sdr_db, abs=0.3)
    assert abs(fresh.valid_sdr_db - held_sdr_db) > 1
    before, after = held.load_weights(), weights_of(started)
    trained = [name for name in before if "running" not in name and "num_batches" not in name]
    assert len(trained) >= 30
    for name in trained:
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"width": 3}, "width is 2, not 3"),
        ({"channels": 2}, "channels is 1, not 2"),
        ({"targets": ("vocals", "accompaniment")}, "targets is 1, not 2"),
    ],
)
def test_fine_tuning_refuses_another_architecture(
    store: SpectrogramStore, tuned: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        train(store, tmp_path, ModelRegistry(tuned / "models"), fine_tune="1", **changed)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_fine_tuning_refuses_another_spectrogram(store: SpectrogramStore, tuned: Path, tmp_path: Path) -> None:
    other = SpectrogramConfig(sample_rate=1000, n_fft=64, hop_length=32)
    coarse = small_store(tmp_path / "coarse.zarr", TRAIN_AND_VALID, spectrogram=other)
    with pytest.raises(UserError, match="spectrogram") as error:
        train(coarse, tmp_path, ModelRegistry(tuned / "models"), fine_tune="1")
    assert "hop_length" in str(error.value)
    assert "\n" not in str(error.value)


def held_model(registry: ModelRegistry, store: SpectrogramStore, valid_sdr_db: float) -> int:
    """A champion that says it scored so on the validation songs of `store`."""
    config = quick(network="unet")
    network = build_network(describe_architecture(config, store))
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    description = describe_model(config, store) | {"metrics": {"valid_sdr_db": valid_sdr_db}}
    held = registry.add(weights, description).version
    assert held is not None
    registry.promote(held)
    return held


def test_first_model_becomes_champion(store: SpectrogramStore, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    result = train(store, tmp_path, registry)
    assert result.is_champion
    assert registry.champion() == result.version == 1
    assert registry.history()[-1].why == "trained: the first model"


@pytest.mark.parametrize(("held_sdr_db", "is_replaced"), [(99.0, False), (-99.0, True)])
def test_champion_validated_on_the_same_data_is_replaced_only_by_a_better_model(
    store: SpectrogramStore, tmp_path: Path, held_sdr_db: float, is_replaced: bool
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    held = held_model(registry, store, held_sdr_db)
    result = train(store, tmp_path, registry)
    assert result.version == held + 1
    assert result.is_champion is is_replaced
    assert registry.champion() == (result.version if is_replaced else held)
    assert registry.open("latest").version == result.version
    if is_replaced:
        scores = f"{result.valid_sdr_db:.2f} dB, -99.00 dB"
        assert registry.history()[-1].why == f"trained: better than the champion on the validation songs ({scores})"


def test_champion_validated_on_other_data_is_scored_on_the_validation_songs(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    other = small_store(tmp_path / "other.zarr", TRAIN_AND_VALID, seed=1)
    assert training_digest(store) != training_digest(other)
    registry = ModelRegistry(tmp_path / "models")
    # What it scored there says nothing here.
    held = held_model(registry, other, 99.0)
    score = validate(store, load_network(registry.open(str(held)))).sdr_db
    worse = registry.add({}, describe_model(quick(network="unet"), store) | {"metrics": {"valid_sdr_db": score}})
    assert not promote_if_better(registry, worse, store)
    assert registry.champion() == held
    better = registry.add({}, describe_model(quick(network="unet"), store) | {"metrics": {"valid_sdr_db": score + 1}})
    assert promote_if_better(registry, better, store)
    assert registry.champion() == better.version
    scores = f"{score + 1:.2f} dB, {score:.2f} dB"
    assert registry.history()[-1].why == f"trained: better than the champion on the validation songs ({scores})"


def test_champion_that_knows_validation_songs_is_not_compared_on_them(store: SpectrogramStore, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    held_model(registry, store, 99.0)
    description = describe_model(quick(network="unet"), store) | {"metrics": {"valid_sdr_db": -99.0}}
    (known, *_) = description["data"]["train"]
    description["data"] |= {"digest": "other", "valid": [known]}
    model = registry.add({}, description)
    assert promote_if_better(registry, model, store)
    why = "trained: the champion knows 1 of the validation songs from its training: not compared"
    assert registry.history()[-1].why == why


def test_champion_that_cannot_be_read_gives_way_and_costs_no_training(store: SpectrogramStore, tmp_path: Path) -> None:
    other = small_store(tmp_path / "other.zarr", TRAIN_AND_VALID, seed=1)
    registry = ModelRegistry(tmp_path / "models")
    held = registry.open(str(held_model(registry, other, 99.0)))
    flip(held.path / WEIGHTS_NAME)
    model = registry.add({}, describe_model(quick(network="unet"), store) | {"metrics": {"valid_sdr_db": -99.0}})
    assert promote_if_better(registry, model, store)
    assert registry.history()[-1].why.startswith("trained: the champion cannot be scored")
