"""What version 0.1.0 wrote: its model, its store, and a run that stopped after two steps."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.files import read_json
from storage.integrity import problems
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.training.training_runs import checkpoint_of, fit_plainly
from vocsep.models.torch_network import TorchNetwork, load_network
from vocsep.patches.pool import SongPool
from vocsep.patches.tiers import open_tier
from vocsep.training.batches import StepBatches, patch_sampler
from vocsep.training.config import TrainConfig
from vocsep.training.log import read_metrics
from vocsep.training.run_folder import with_settings_of

WRITTEN = Path(__file__).parents[2] / "data" / "version-0.1.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "written"))


def settings() -> TrainConfig:
    return TrainConfig.model_validate(with_settings_of(str(WRITTEN / "runs" / "run"), {}))


def test_model_gives_finite_masks_of_the_size_of_its_input(folder: Path) -> None:
    network = TorchNetwork(load_network(ModelRegistry(folder / "models").open("champion")))
    masks = network(np.random.default_rng(0).random((2, 1, 100, 512), dtype=np.float32))
    assert masks.shape == (2, 1, 100, 512)
    assert np.isfinite(masks).all()
    assert ((masks >= 0) & (masks <= 1)).all()


def test_store_is_sound_and_gives_patches(folder: Path) -> None:
    assert problems(folder / "store.zarr") == []
    store, config = SpectrogramStore.open(folder / "store.zarr"), settings()
    tier, _ = open_tier(SongPool(store), ("vocals", "mixture"), config.channels, torch.device("cpu"), "stream")
    batch = next(StepBatches(tier, patch_sampler(config, SongPool(store)), config, 0, 1).from_step(0))
    assert batch.mixture.shape == (config.batch_size, 1, 128, 512)
    assert torch.isfinite(batch.mixture).all()
    assert batch.vocals.any()


def test_run_goes_on_from_its_second_step_with_a_larger_budget(folder: Path) -> None:
    run = folder / "runs" / "run"
    assert checkpoint_of(run).step == 2
    store = SpectrogramStore.open(folder / "store.zarr")
    result = fit_plainly(settings().model_copy(update={"steps": 4}), store, folder, str(run))
    assert result is not None
    assert (result.run_folder, result.steps, result.version) == (str(run), 4, 2)
    assert checkpoint_of(run).step == 4
    assert [entry["step"] for entry in read_json(run / "run.json")["history"]] == [2, 4]
    assert [row["step"] for row in read_metrics(run)][-1] == "4"
