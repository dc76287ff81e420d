from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from storage.errors import UserError
from storage.files import read_json, write_json
from storage.registry import ModelRegistry
from tests.vocsep.models.small_models import add_model, music
from vocsep.arrays import Waveform
from vocsep.models.architecture import parse_architecture
from vocsep.models.torch_network import load_network, pick_device
from vocsep.separation.cache import cached_separator
from vocsep.separation.separator import Separator
from vocsep.separation.settings import SeparationSettings

Array = NDArray[Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry: version 1 sees mono at the fine preset, 2 stereo at fine, 3 mono at notebook (the champion)."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    add_model(folder, channels=1, preset="fine")
    add_model(folder, channels=2, preset="fine")
    add_model(folder, channels=1, preset="notebook")
    return folder


VERSIONS = ("1", "2", "3")


def load(models: Path, version: str) -> Separator:
    return Separator.load(ModelRegistry(models).open(version), device="cpu", precision="32")


# Waveforms


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("sample_rate", "channels"), [(44100, 2), (48000, 2), (22050, 1), (8000, 1), (96000, 2), (11025, 2)]
)
def test_stems_have_the_waveforms_shape_and_sum_to_it(
    models: Path, version: str, sample_rate: int, channels: int
) -> None:
    waveform = music(1, channels, sample_rate)
    before = waveform.copy()
    stems = load(models, version).separate(waveform, sample_rate)
    np.testing.assert_array_equal(waveform, before)
    assert list(stems) == ["vocals", "accompaniment"]
    for stem in stems.values():
        assert stem.shape == waveform.shape
        assert stem.dtype == np.float32
        # An untrained mask is neither all 0 nor all 1.
        assert np.abs(stem).max() > 0.01
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)


def test_mask_of_the_separator_has_a_value_for_every_frame_and_bin_of_the_preset(models: Path) -> None:
    fine, notebook = load(models, "1"), load(models, "3")
    waveform = music(2, 2, 44100, 1.0)
    assert fine.mask(waveform, 44100).shape == (2, 1 + 11025 // 256, 512)
    assert notebook.mask(waveform, 44100).shape == (1, 1 + 8192 // 768, 512)
    assert ((fine.mask(waveform, 44100) >= 0) & (fine.mask(waveform, 44100) <= 1)).all()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("samples", [1, 3, 500, 44100])
def test_silence_gives_silence_of_any_length(models: Path, version: str, samples: int) -> None:
    for channels in (1, 2):
        stems = load(models, version).separate(np.zeros((channels, samples), np.float32), 44100)
        for stem in stems.values():
            assert stem.shape == (channels, samples)
            assert not stem.any()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("sample_rate", [8000, 44100, 192000])
@pytest.mark.parametrize("samples", [1, 2, 100])
def test_waveform_of_a_few_samples_is_separated_too(models: Path, version: str, sample_rate: int, samples: int) -> None:
    waveform = np.full((2, samples), 0.5, np.float32)
    stems = load(models, version).separate(waveform, sample_rate)
    assert np.isfinite(stems["vocals"]).all()
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros((2, 0), np.float32),
        np.zeros((0, 100), np.float32),
        np.zeros(100, np.float32),
        np.full((2, 1000), np.nan, np.float32),
        np.full((1, 1000), np.inf, np.float32),
    ],
    ids=["no samples", "no channels", "one axis", "NaN", "infinite"],
)
def test_waveform_that_cannot_be_separated_is_refused_in_one_line(
    models: Path, version: str, waveform: Waveform
) -> None:
    separator = load(models, version)
    with pytest.raises(UserError) as error:
        separator.separate(waveform, 44100)
    assert "\n" not in str(error.value)


# Models


def test_device_is_the_one_named_and_auto_is_one_that_works() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert torch.ones(2, device=pick_device()).sum().item() == 2


def test_architecture_of_another_kind_is_named_in_one_line() -> None:
    with pytest.raises(UserError, match=r"not known.*'transformer'"):
        parse_architecture({"name": "transformer", "channels": 1, "width": 16})
    with pytest.raises(UserError, match="not known"):
        parse_architecture({})


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "other"])
def test_damaged_weights_are_refused_in_one_line_that_names_the_file(tmp_path: Path, damage: str) -> None:
    model = add_model(tmp_path / "models")
    weights = model.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "gone":
        weights.unlink()
    else:
        content[-5] ^= 1
        weights.write_bytes({"flipped": bytes(content), "cut": bytes(content[:-9]), "other": b"x"}[damage])
    with pytest.raises(UserError, match="missing or damaged") as error:
        Separator.load(ModelRegistry(tmp_path / "models").open("1"))
    assert str(weights) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": {"name": "unet", "channels": 2, "width": 2, "targets": 1}},
        {"architecture": {"name": "unet", "channels": 1, "width": 3, "targets": 1}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 2}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 3}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": 512}},
        {"architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": "all"}},
        {"architecture": {"name": "unet"}},
        {"architecture": {"name": "unet", "channels": 1, "width": "wide", "targets": 1}},
        {"architecture": None},
        {"spectrogram": {"sample_rate": 11025}},
        {"spectrogram": None},
        {"weights_sha256": None},
    ],
)
def test_description_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    model = add_model(tmp_path / "models")
    description = read_json(model.path / "model.json") | {"description_sha256": None} | changed
    # None stands for a field that is missing.
    write_json(model.path / "model.json", {name: value for name, value in description.items() if value is not None})
    with pytest.raises(UserError) as error:
        Separator.load(ModelRegistry(tmp_path / "models").open("1"))
    assert "\n" not in str(error.value)


def test_loaded_network_is_in_evaluation_mode_and_has_the_saved_weights(models: Path) -> None:
    model = ModelRegistry(models).open("2")
    network = load_network(model)
    assert not any(module.training for module in network.modules())
    saved = model.load_weights()
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), saved[name].reshape(value.shape))


def test_bfloat16_leaves_an_error_far_below_that_of_any_model(models: Path) -> None:
    """Its 8 significant bits leave rounding errors of some -50 dB; a good model's own are at -10 dB."""
    waveform = music(2, 2, 44100)
    exact, rough = (
        Separator.load("2", models, device="cpu", precision=precision).separate(waveform, 44100)
        for precision in ("32", "bf16")
    )
    for stem, expected in exact.items():
        error_db = 10 * np.log10(np.square(rough[stem] - expected).sum() / np.square(expected).sum())
        assert -90 < error_db < -35


def test_precision_is_bfloat16_exactly_where_the_processor_computes_it(models: Path) -> None:
    waveform = music(2, 2, 44100)
    capabilities = torch.cpu.get_capabilities()
    native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    default, expected = (
        Separator.load("2", models, device="cpu", **chosen).separate(waveform, 44100)  # type: ignore[arg-type]
        for chosen in ({}, {"precision": "bf16" if native else "32"})
    )
    np.testing.assert_array_equal(default["vocals"], expected["vocals"])


def test_presets_are_names_of_precisions_and_options_given_as_well_win() -> None:
    assert SeparationSettings(preset="fast") == SeparationSettings().model_copy(update={"preset": "fast"})
    assert SeparationSettings(preset="best").precision == "32"
    assert SeparationSettings(preset="best", precision="bf16").precision == "bf16"


def test_device_that_is_not_there_is_one_line(models: Path) -> None:
    for device in ("cuda:77", "nonsense"):
        with pytest.raises(UserError, match=device) as error:
            Separator.load("1", models, device=device)
        assert "\n" not in str(error.value)


def test_three_lines_of_python_separate_a_file(models: Path, tmp_path: Path) -> None:
    import vocsep

    waveform = music(5, 2, 22050)
    soundfile.write(tmp_path / "song.wav", waveform.T, 22050, subtype="FLOAT")
    separator = vocsep.Separator.load("2", models)
    done: list[float] = []
    result = separator.separate_file(
        tmp_path / "song.wav", tmp_path / "out", progress=lambda seconds, total: done.append(seconds)
    )
    stems = [soundfile.read(result.outputs[name], dtype="float32")[0].T for name in ("vocals", "accompaniment")]
    np.testing.assert_allclose(stems[0] + stems[1], waveform, rtol=0, atol=1e-6)
    assert done[-1] == pytest.approx(waveform.shape[1] / 22050)


def test_kept_separator_is_loaded_anew_when_the_champion_moves(tmp_path: Path) -> None:
    add_model(tmp_path / "models", seed=0)
    first = cached_separator(tmp_path / "models", SeparationSettings())
    assert cached_separator(tmp_path / "models", SeparationSettings()) is first
    add_model(tmp_path / "models", seed=1)
    waveform = music(6, 1, 11025)
    moved = cached_separator(tmp_path / "models", SeparationSettings()).separate(waveform, 11025)
    assert np.abs(moved["vocals"] - first.separate(waveform, 11025)["vocals"]).max() > 1e-3


@pytest.mark.parametrize("version", VERSIONS)
def test_more_than_two_channels_are_taken_in_pairs_and_alone(models: Path, version: str) -> None:
    waveform = music(7, 3, 44100)
    separator = load(models, version)
    stems = separator.separate(waveform, 44100)
    np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)
    if version == "2":
        pair = separator.separate(waveform[:2], 44100)["vocals"]
        alone = separator.separate(waveform[2:], 44100)["vocals"]
        np.testing.assert_allclose(stems["vocals"], np.concatenate([pair, alone]), rtol=0, atol=1e-5)


def test_threads_run_after_a_separation_as_they_did_before(models: Path) -> None:
    def in_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as worker:
            return worker.submit(torch.get_num_threads).result()

    held = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert in_a_new_thread() == 3
        Separator.load("2", models, jobs=2).separate(music(8, 2, 22050), 22050)
        assert (torch.get_num_threads(), in_a_new_thread()) == (3, 3)
    finally:
        torch.set_num_threads(held)
