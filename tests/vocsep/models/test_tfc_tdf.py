import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import UserError
from storage.registry import ModelRegistry
from vocsep.models.architecture import TfcTdfArchitecture, parse_architecture
from vocsep.models.export import export_model
from vocsep.models.masks import predict_block, predict_mask
from vocsep.models.tfc_tdf import AcrossBins, TfcTdf
from vocsep.models.torch_network import TorchNetwork, folded, load_network
from vocsep.spectrograms.config import load_spectrogram_config


def lively(channels: int = 1, width: int = 3, bins: int = 64, targets: int = 1) -> TfcTdf:
    """A network whose masks differ from place to place, in evaluation mode."""
    torch.manual_seed(0)
    architecture = {"name": "tfc-tdf", "channels": channels, "width": width, "bins": bins, "targets": targets}
    network = TfcTdf(TfcTdfArchitecture.model_validate(architecture))
    with torch.no_grad():
        for _ in range(20):
            network(10 * torch.rand(2, channels, 128, bins) ** 4)
    return network.eval()


def weights_of_a_block(maps: int, bins: int) -> int:
    """Two 3x3 convolutions, two layers along frequency, and four batch norms of two values per map."""
    return 2 * 9 * maps**2 + 2 * bins * (bins // 8) + 4 * 2 * maps


@pytest.mark.parametrize("channels", [1, 2])
def test_number_of_weights_is_that_of_the_layer_table(channels: int) -> None:
    maps, bins = (24, 48, 72, 96), (128, 64, 32, 16)
    expected = channels * 24 * 8 + 24 + 24 * channels * 8 + channels
    expected += sum(2 * weights_of_a_block(*level) for level in zip(maps[:3], bins[:3], strict=True))
    expected += weights_of_a_block(maps[3], bins[3])
    for above, below in itertools.pairwise(maps):
        # Down, up, each behind a batch norm, and the 1x1 that joins what comes up to what was there.
        expected += 4 * above * below + 2 * above + 4 * above * below + 2 * below + 2 * above**2
    network = TfcTdf(TfcTdfArchitecture(channels=2 if channels == 2 else 1, bins=512))
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 2]),
    frames=st.integers(1, 200),
    bins=st.integers(1, 140),
    targets=st.sampled_from([1, 2]),
)
def test_masks_have_the_shape_of_any_input_and_lie_between_0_and_1(
    batch: int, channels: int, frames: int, bins: int, targets: int
) -> None:
    network = lively(channels, width=1, bins=bins, targets=targets)
    with torch.inference_mode():
        masks = network(100 * torch.rand(batch, channels, frames, bins))
    assert masks.shape == (batch, targets * channels, frames, bins)
    assert torch.all((masks >= 0) & (masks <= 1))


def test_every_bin_is_seen_from_every_bin() -> None:
    network = lively(bins=256)
    magnitudes = torch.rand(1, 1, 16, 256, requires_grad=True)
    for seen_from in (0, 100, 255):
        (gradient,) = torch.autograd.grad(network(magnitudes)[0, 0, 8, seen_from], magnitudes, retain_graph=True)
        assert (gradient[0, 0].abs().amax(dim=0) > 0).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layer_across_bins_is_a_product_along_frequency_and_keeps_the_memory_format(
    memory_format: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    layer = AcrossBins(12, 5)
    hidden = torch.rand(3, 4, 7, 12).contiguous(memory_format=memory_format).requires_grad_()
    products = layer(hidden)
    assert products.is_contiguous(memory_format=memory_format)
    wanted = torch.einsum("gf,bctf->bctg", layer.weight, hidden)
    torch.testing.assert_close(products, wanted)
    weighting = torch.rand_like(wanted)
    inputs = (hidden, layer.weight)
    for found, expected in zip(
        torch.autograd.grad((products * weighting).sum(), inputs),
        torch.autograd.grad((wanted * weighting).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_masks_of_blocks_are_those_of_the_whole_song() -> None:
    network = TorchNetwork(lively(channels=2))
    magnitudes = (10 * np.random.default_rng(0).random((2, 3500, 64)) ** 4).astype(np.float32)
    whole = network(magnitudes[None])[0]
    assert whole.std() > 0.01
    np.testing.assert_allclose(predict_mask(network, magnitudes), whole, atol=1e-5)
    # A block that begins anywhere on a multiple of the strides.
    block = predict_block(network, magnitudes[:, 1000 - 200 : 1400], 800, slice(1000, 1200))
    np.testing.assert_allclose(block, whole[:, 1000:1200], atol=1e-5)


def test_in_evaluation_an_item_does_not_depend_on_the_rest_of_the_batch() -> None:
    network = lively(2)
    first, other = torch.rand(1, 2, 128, 64), 50 * torch.rand(3, 2, 128, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(torch.cat([first, other]))[:1], network(first), rtol=0, atol=1e-5)


def test_gradients_reach_every_weight() -> None:
    network = lively(2).train()
    network(torch.rand(2, 2, 128, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_folded_network_has_the_same_masks() -> None:
    network, magnitudes = lively(2), torch.rand(1, 2, 130, 64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(network)(magnitudes), network(magnitudes), rtol=0, atol=1e-5)


def add(registry: Path, wrong: dict[str, object]) -> None:
    architecture = {"name": "tfc-tdf", "channels": 2, "width": 2, "targets": 1, "bins": 512}
    weights = {name: value.numpy() for name, value in lively(2, 2, 512).state_dict().items()}
    spectrogram = load_spectrogram_config("fine").model_dump(mode="json")
    ModelRegistry(registry).add(weights, {"architecture": architecture | wrong, "spectrogram": spectrogram})


@pytest.mark.parametrize("export_format", ["onnx", "torch"])
def test_export_has_the_models_masks(tmp_path: Path, export_format: str) -> None:
    pytest.importorskip("onnxruntime")
    add(tmp_path, {})
    assert export_model("1", tmp_path, "onnx" if export_format == "onnx" else "torch").largest_difference < 1e-4


@pytest.mark.parametrize("wrong", [{"width": 3}, {"bins": 4096}, {"targets": 2}, {"width": 1024, "bins": 65536}])
def test_sizes_that_the_weights_do_not_have_are_told_before_memory_is_taken(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    add(tmp_path, wrong)
    with pytest.raises(UserError, match=r"(weights do|architecture does) not fit"):
        load_network(ModelRegistry(tmp_path).open("1"))


@pytest.mark.parametrize(
    "wrong", [{"width": 5000}, {"bins": 10**9}, {"bins": 0}, {"scaled_bins": 10**9}, {"levels": 4}]
)
def test_sizes_beyond_reason_are_not_known(wrong: dict[str, object]) -> None:
    good = {"name": "tfc-tdf", "channels": 1, "bins": 512}
    parse_architecture(good)
    with pytest.raises(UserError, match="not known"):
        parse_architecture(good | wrong)
