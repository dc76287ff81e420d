"""The six systems of the original analysis: their settings, and that each trains, is saved and separates."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from storage.errors import UserError
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.models.small_models import unet
from tests.vocsep.training.training_runs import ALL_BINS, small_store, train
from vocsep.models.architecture import parse_architecture
from vocsep.models.mask_module import MaskModule
from vocsep.models.networks import build_network
from vocsep.models.objective import oracle_mask
from vocsep.models.objective_config import Objective
from vocsep.models.torch_network import load_network
from vocsep.separation.separator import Separator
from vocsep.training.config import TrainConfig
from vocsep.training.settings_files import load_settings, system_names

# As in the table of the analysis: input, target, loss, bins, output, bias.
TABLE = {
    "notebook": ("raw", "source", "mse", "even", "mask", None),
    "project": ("log-unit", "oracle", "l1", "all", "mask", -0.4),
    "solution-1": ("raw", "source", "mse", "even", "mask", -0.4),
    "solution-2a": ("peak", "oracle", "mse", "even", "mask", "oracle"),
    "solution-2b": ("log", "log-ratio", "mse", "even", "log-mask", None),
    "solution-3": ("raw", "source", "mse", "even", "magnitude", None),
}
SPLITS = ("train", "train", "valid")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    """Three short songs with all bins."""
    return small_store(tmp_path_factory.mktemp("songs") / "songs.zarr", SPLITS, spectrogram=ALL_BINS)


def test_systems_are_those_of_the_table() -> None:
    assert system_names() == sorted(TABLE)
    for name, row in TABLE.items():
        objective = TrainConfig.model_validate(load_settings(name)).objective
        found = (objective.input, objective.target, objective.loss, objective.bins, objective.output, objective.bias)
        assert found == row


def test_default_objective_is_the_l1_distance_of_magnitudes_with_scaled_roots() -> None:
    assert TrainConfig().objective == Objective(
        input="root", output="mask", target="in-phase", loss="snr", bins="even", bias=None
    )


def test_name_of_no_system_is_one_line_that_names_them() -> None:
    with pytest.raises(UserError, match=r"solution-2a") as error:
        load_settings("solution-4")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*TABLE, None])
def test_every_system_trains_is_saved_and_separates(name: str | None, store: SpectrogramStore, tmp_path: Path) -> None:
    settings = load_settings(name) if name else {}
    result = train(store, tmp_path, **settings)
    assert np.isfinite(result.valid_sdr_db)
    model = ModelRegistry(tmp_path / "models").open("1")
    separator = Separator.load(model, device="cpu", precision="32")
    assert model.description["objective"] == TrainConfig.model_validate(settings).objective.model_dump(mode="json")
    waveform = 0.3 * np.random.default_rng(0).standard_normal((1, 4000)).astype(np.float32)
    mask = separator.mask(waveform, 1000)
    assert mask.shape[-1] == 33
    assert ((mask >= 0) & (mask <= 1)).all()
    stems = separator.separate(waveform, 1000)
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, atol=1e-6)


def network_of(store: SpectrogramStore, tmp_path: Path, **objective: object) -> MaskModule:
    """The network of a run of one step with a learning rate of next to nothing."""
    train(store, tmp_path, steps=1, learning_rate=1e-12, warmup=0, ema=0, objective=objective)
    return load_network(ModelRegistry(tmp_path / "models").open("1"))


def test_bias_begins_where_the_settings_say(store: SpectrogramStore, tmp_path: Path) -> None:
    bias = network_of(store, tmp_path, bias=-0.4).to_mask.bias
    assert bias is not None
    torch.testing.assert_close(bias.detach(), torch.tensor([-0.4]), rtol=0, atol=1e-6)


def test_measured_bias_is_that_of_the_songs_mean_oracle_mask(store: SpectrogramStore, tmp_path: Path) -> None:
    masks: list[NDArray[np.float32]] = []
    for track in store.tracks("train"):
        mixture, vocals = (torch.from_numpy(np.array(store.array(track, name))) for name in ("mixture", "vocals"))
        masks.append(oracle_mask(mixture[..., 1:], vocals[..., 1:]).numpy())
    bias = network_of(store, tmp_path, bias="oracle").to_mask.bias
    assert bias is not None
    # Patches are drawn at random, and are over the songs' middles more often than over their ends.
    assert torch.sigmoid(bias).item() == pytest.approx(np.mean(masks), rel=0.05)


# 513 bins


def test_objective_of_all_bins_is_refused_on_a_store_without_them(tmp_path: Path) -> None:
    even = small_store(tmp_path / "even.zarr", SPLITS)
    with pytest.raises(UserError, match=r"holds 32 bins.*all 33") as error:
        train(even, tmp_path, objective={"bins": "all"})
    assert "\n" not in str(error.value)


def test_network_of_even_bins_sees_nothing_of_the_lowest_bin_and_gives_it_the_mask_of_the_second() -> None:
    torch.manual_seed(0)
    network = unet(width=2, drops_dc=True).eval()
    magnitudes = torch.rand(1, 1, 64, 33)
    other = magnitudes.clone()
    other[..., 0] = 100
    with torch.inference_mode():
        mask = network(magnitudes)
        torch.testing.assert_close(network(other), mask, rtol=0, atol=0)
    assert mask.shape == magnitudes.shape
    torch.testing.assert_close(mask[..., 0], mask[..., 1], rtol=0, atol=0)


def test_network_of_all_bins_gives_every_bin_a_mask_of_its_own() -> None:
    torch.manual_seed(0)
    network = unet(width=2).eval()
    with torch.inference_mode():
        mask = network(torch.rand(1, 1, 128, 513))
    assert mask.shape == (1, 1, 128, 513)
    assert (mask[..., 0] != mask[..., 1]).any()
    assert (mask[..., 512] != mask[..., 511]).any()


def test_networks_of_all_and_of_even_bins_see_the_same_patches(store: SpectrogramStore, tmp_path: Path) -> None:
    """One store serves both: the even ones are all but the lowest of all."""
    even = small_store(tmp_path / "even.zarr", SPLITS)
    for first, second in zip(store.tracks("train"), even.tracks("train"), strict=True):
        np.testing.assert_array_equal(
            np.array(store.array(first, "mixture"))[..., 1:], np.array(even.array(second, "mixture"))
        )


# Files of models


def test_model_files_of_before_still_load() -> None:
    old = {"name": "unet", "channels": 1, "width": 2, "targets": 1}
    for bins in (None, 40):
        network = build_network(parse_architecture(old | {"scaled_bins": bins}))
        assert (network.input, network.output, network.drops_dc) == ("raw" if bins is None else "root", "mask", False)


@pytest.mark.parametrize(
    "wrong", [{"input": "cube"}, {"output": "phase"}, {"drops_dc": 2}, {"input": "root"}, {"scaled_bins": 9}], ids=str
)
def test_unknown_words_in_a_model_file_are_refused(wrong: dict[str, object]) -> None:
    architecture = {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": None, "input": "raw"}
    parse_architecture(architecture)
    with pytest.raises(UserError, match="not known"):
        parse_architecture(architecture | wrong)
