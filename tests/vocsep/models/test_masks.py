import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from tests.vocsep.models.small_models import lively
from vocsep.models import masks
from vocsep.models.architecture import parse_architecture
from vocsep.models.mask_module import MaskModule
from vocsep.models.masks import default_groups, predict_block, predict_mask
from vocsep.models.networks import build_network
from vocsep.models.torch_network import TorchNetwork, folded

Array = NDArray[Any]


def network(channels: int, **options: Any) -> TorchNetwork:
    return TorchNetwork(lively(channels, **options))


def of_name(name: str, input: str) -> MaskModule:
    torch.manual_seed(0)
    content = {"name": name, "channels": 1, "width": 2, "input": input} | ({"bins": 64} if name == "tfc-tdf" else {})
    return build_network(parse_architecture(content)).eval()


def in_one_pass(channels: int, batch: Array, **options: Any) -> Array:
    with torch.inference_mode():
        result: Array = lively(channels, **options)(torch.from_numpy(batch)).numpy()
    return result


def song(channels: int, frames: int, bins: int = 512, seed: int = 0) -> Array:
    return 10 * np.random.default_rng(seed).random((channels, frames, bins), dtype=np.float32) ** 4


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("scaled_bins", [None, 512])
@pytest.mark.parametrize("frames", [1, 64, 129, 700, 961])
def test_mask_made_block_by_block_is_that_of_one_pass_over_the_whole_song(
    channels: int, scaled_bins: int | None, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    magnitudes = song(2, frames)
    batch = magnitudes[:, None] if channels == 1 else magnitudes[None]
    whole = in_one_pass(channels, batch, scaled_bins=scaled_bins).reshape(2, frames, 512)
    assert whole.std() > 0.01
    monkeypatch.setattr(masks, "BLOCK_FRAMES", 128)
    mask = predict_mask(network(channels, scaled_bins=scaled_bins), magnitudes)
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["unet", "tfc-tdf"])
def test_network_reaches_no_further_than_its_context_from_a_multiple_of_its_strides(name: str) -> None:
    network = of_name(name, "raw")
    context = network.context_frames
    assert context % network.frame_stride == 0
    start, stop = 512, 640
    magnitudes = torch.rand(1, 1, 1216, 64, requires_grad=True)
    # A block, and the one frame more that a stretched mask needs.
    network(magnitudes)[:, :, start : stop + 1].sum().backward()
    assert magnitudes.grad is not None
    seen = magnitudes.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert start - int(seen.min()) <= context
    assert int(seen.max()) - stop <= context
    assert int(seen.max()) - stop > context - network.frame_stride  # no more than is needed


@pytest.mark.parametrize("name", ["unet", "tfc-tdf"])
def test_loudest_frame_beyond_the_context_does_not_change_a_mask_that_is_made_of_shares_of_the_peak(name: str) -> None:
    network = of_name(name, "peak")
    magnitudes = torch.rand(1, 1, 1216, 64)
    with torch.inference_mode():
        mask = network(magnitudes)[:, :, 512:641]
        for frame, changes in ((511 - network.context_frames, False), (511 - 64, True)):
            louder = magnitudes.clone()
            louder[:, :, frame] = 10
            assert ((network(louder)[:, :, 512:641] - mask).abs().max() > 1e-6) == changes


@pytest.mark.parametrize("channels", [1, 2])
def test_masks_of_two_targets_become_the_share_of_the_vocals_power(channels: int) -> None:
    magnitudes = song(2, 100, seed=1)
    batch = magnitudes[:, None] if channels == 1 else magnitudes[None]
    # All channels of the vocals, then those of the accompaniment.
    both = in_one_pass(channels, batch, targets=2)
    vocals, accompaniment = (both[:, 0], both[:, 1]) if channels == 1 else (both[0, :2], both[0, 2:])
    assert np.abs(vocals - accompaniment).max() > 0.05
    expected = vocals**2 / (vocals**2 + accompaniment**2)
    np.testing.assert_allclose(predict_mask(network(channels, targets=2), magnitudes), expected, rtol=0, atol=1e-5)


def test_masks_of_two_targets_that_are_both_0_share_evenly() -> None:
    silent = copy.deepcopy(lively(1, targets=2))
    with torch.no_grad():
        silent.to_mask.weight.zero_()
        silent.to_mask.bias.fill_(-1e4)  # type: ignore[union-attr]
    np.testing.assert_array_equal(predict_mask(TorchNetwork(silent), np.ones((1, 64, 512), np.float32)), 0.5)


def test_network_of_one_channel_treats_the_channels_of_a_song_alone() -> None:
    magnitudes = song(2, 100)
    both = predict_mask(network(1), magnitudes)
    for channel in (0, 1):
        alone = predict_mask(network(1), magnitudes[channel : channel + 1])
        np.testing.assert_allclose(alone[0], both[channel], rtol=0, atol=1e-5)


def test_network_of_two_channels_sees_mono_in_both_and_its_masks_are_averaged() -> None:
    magnitudes = song(1, 100)
    doubled = predict_mask(network(2), np.concatenate([magnitudes, magnitudes]))
    assert np.abs(doubled[0] - doubled[1]).max() > 0.01
    mono = predict_mask(network(2), magnitudes)
    assert mono.shape == (1, 100, 512)
    np.testing.assert_allclose(mono[0], doubled.mean(axis=0), rtol=0, atol=1e-6)


def test_pairs_of_many_channels_are_seen_together_and_single_ones_alone() -> None:
    magnitudes = song(6, 70)
    mask = predict_block(network(2), magnitudes, 0, slice(0, magnitudes.shape[1]), [(0, 1), (2,), (3,), (4, 5)])
    for group in ([0, 1], [2], [3], [4, 5]):
        np.testing.assert_allclose(mask[group], predict_mask(network(2), magnitudes[group]), rtol=0, atol=1e-6)


def test_by_default_the_first_two_channels_are_a_pair() -> None:
    assert [list(default_groups(channels)) for channels in (1, 2, 4)] == [[(0,)], [(0, 1)], [(0, 1), (2,), (3,)]]


def patches_one_by_one(channels: int, magnitudes: Array, overlap: float) -> Array:
    """Every patch of 128 frames that reaches into the song on its own, averaged with a Hann window."""
    frames = magnitudes.shape[1]
    step = round(128 * (1 - overlap))
    hann = np.sin(np.pi * np.arange(1, 129) / 129) ** 2
    total, weight = np.zeros(magnitudes.shape), np.zeros(frames)
    for number in range(-128 // step - 1, frames // step + 1):
        start = number * step
        patch = np.zeros((len(magnitudes), 128, magnitudes.shape[2]), np.float32)
        there = [frame for frame in range(start, start + 128) if 0 <= frame < frames]
        if not there:
            continue
        patch[:, [frame - start for frame in there]] = magnitudes[:, there]
        batch = patch[:, None] if channels == 1 else patch[None]
        predicted = in_one_pass(channels, batch).reshape(patch.shape)
        for frame in there:
            total[:, frame] += hann[frame - start] * predicted[:, frame - start]
            weight[frame] += hann[frame - start]
    return total / weight[:, None]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("frames", "overlap"), [(40, 0.5), (300, 0.5), (200, 0.75), (130, 0.1)])
def test_overlapping_patches_are_averaged_with_a_hann_window(
    channels: int, frames: int, overlap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    magnitudes = song(2, frames, bins=64)
    monkeypatch.setattr(masks, "BLOCK_FRAMES", 128)
    mask = predict_mask(network(channels), magnitudes, overlap=overlap)
    np.testing.assert_allclose(mask, patches_one_by_one(channels, magnitudes, overlap), rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 5), blocks=st.integers(1, 2), overlap=st.sampled_from([0.0, 0.5]))
def test_any_block_with_its_context_has_the_mask_that_it_has_in_the_whole_song(
    start: int, blocks: int, overlap: float
) -> None:
    magnitudes = song(1, 900, bins=64)
    block = slice(64 * start, min(900, 64 * (start + blocks) + 1))
    context = network(1).context_frames
    left, right = max(0, block.start - context), block.stop + context
    part = predict_block(network(1), magnitudes[:, left:right], left, block, overlap=overlap)
    whole = predict_mask(network(1), magnitudes, overlap=overlap)
    np.testing.assert_allclose(part, whole[:, block], rtol=0, atol=1e-5)


def test_magnitudes_are_left_as_they_are() -> None:
    magnitudes = song(2, 70)
    before = magnitudes.copy()
    for overlap in (0.0, 0.5):
        predict_mask(network(1), magnitudes, overlap=overlap)
    np.testing.assert_array_equal(magnitudes, before)


def test_network_with_nan_in_its_weights_is_one_line() -> None:
    broken = copy.deepcopy(lively(1))
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="NaN") as error:
        predict_mask(TorchNetwork(broken), np.ones((1, 64, 512), np.float32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scaled_bins", [None, 512])
def test_network_with_folded_batch_norms_has_the_same_masks_and_leaves_the_other_as_it_is(
    scaled_bins: int | None,
) -> None:
    original = copy.deepcopy(lively(2, scaled_bins=scaled_bins))
    before = {name: value.clone() for name, value in original.state_dict().items()}
    # Statistics far from those of a new layer, so that leaving them out would show.
    batch = song(2, 128)[None]
    expected = in_one_pass(2, batch, scaled_bins=scaled_bins)
    copied = folded(original)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copied.modules())
    np.testing.assert_allclose(TorchNetwork(copied)(batch), expected, rtol=0, atol=1e-5)
    for name, value in original.state_dict().items():
        assert torch.equal(value, before[name])
