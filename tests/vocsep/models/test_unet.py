from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tests.vocsep.models.small_models import unet
from vocsep.models.mask_module import InputScaling
from vocsep.models.unet import UNet

Array = NDArray[Any]

# Jansson et al. 2017: feature maps into and out of every 5x5 convolution, the decoder's inputs with the encoder's
# output of the same size joined to them.
ENCODER = ((0, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512))
DECODER = ((512, 256), (512, 128), (256, 64), (128, 32), (64, 16), (32, 0))


def parameters_of_the_paper(channels: int) -> int:
    """Of the layer table above, where 0 stands for the audio channels.

    Every convolution but the last is followed by batch norm, two values per feature map, and so needs no bias.
    """
    total = 0
    for inputs, outputs in ENCODER + DECODER:
        total += 25 * (inputs or channels) * (outputs or channels) + (2 * outputs if outputs else channels)
    return total


def lively(channels: int = 1, width: int = 2) -> UNet:
    """A network whose masks differ from place to place, in evaluation mode."""
    torch.manual_seed(0)
    network = unet(channels, width)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(4, channels, 128, 64))
    return network.eval()


@pytest.mark.parametrize("channels", [1, 2])
def test_number_of_parameters_is_that_of_the_papers_layer_table(channels: int) -> None:
    count = sum(parameter.numel() for parameter in unet(channels).parameters())
    assert count == parameters_of_the_paper(channels)
    assert count == {1: 9_821_809, 2: 9_823_010}[channels]


@pytest.mark.parametrize("width", [1, 3, 16])
def test_feature_maps_double_from_the_width_to_32_times_the_width(width: int) -> None:
    maps = [module.out_channels for module in unet(1, width).encoder.modules() if isinstance(module, nn.Conv2d)]
    assert maps == [width * factor for factor in (1, 2, 4, 8, 16, 32)]


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 2]),
    frames=st.integers(1, 200),
    bins=st.integers(1, 140),
)
def test_mask_has_the_shape_of_any_input_and_lies_between_0_and_1(
    batch: int, channels: int, frames: int, bins: int
) -> None:
    network = unet(channels, width=1).eval()
    with torch.inference_mode():
        mask = network(100 * torch.rand(batch, channels, frames, bins))
    assert mask.shape == (batch, channels, frames, bins)
    assert torch.all((mask >= 0) & (mask <= 1))


@pytest.mark.parametrize(("frames", "bins"), [(1, 512), (1, 1), (128, 513), (63, 513), (65, 512), (129, 511)])
def test_sizes_beside_the_multiples_of_64_keep_their_shape(frames: int, bins: int) -> None:
    with torch.inference_mode():
        assert unet(width=2).eval()(torch.rand(1, 1, frames, bins)).shape == (1, 1, frames, bins)


def test_padding_to_multiples_of_64_is_that_with_zeros() -> None:
    network = lively()
    magnitudes = torch.rand(1, 1, 70, 50)
    padded = torch.zeros(1, 1, 128, 64)
    padded[..., :70, :50] = magnitudes
    with torch.inference_mode():
        torch.testing.assert_close(network(magnitudes), network(padded)[..., :70, :50], rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_in_evaluation_an_item_does_not_depend_on_the_rest_of_the_batch(channels: int) -> None:
    network = lively(channels)
    first, other = torch.rand(1, channels, 128, 64), 50 * torch.rand(3, channels, 128, 64)
    with torch.inference_mode():
        alone, together = network(first), network(torch.cat([first, other]))
    assert alone.std() > 0.01
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)


def test_in_evaluation_the_same_input_gives_the_same_mask() -> None:
    network, magnitudes = lively(), torch.rand(1, 1, 128, 64)
    with torch.inference_mode():
        assert torch.equal(network(magnitudes), network(magnitudes))


@pytest.mark.parametrize("channels", [1, 2])
def test_gradients_reach_every_parameter(channels: int) -> None:
    torch.manual_seed(0)
    network = unet(channels, width=2)
    network(torch.rand(2, channels, 128, 128)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_dropout_of_half_stands_in_exactly_the_first_three_decoder_blocks() -> None:
    network = unet()
    shares = [[module.p for module in block.modules() if isinstance(module, nn.Dropout)] for block in network.decoder]
    assert shares == [[0.5], [0.5], [0.5], [], []]
    assert sum(isinstance(module, nn.Dropout) for module in network.modules()) == 3


def test_every_convolution_but_the_last_is_followed_by_batch_norm() -> None:
    network = unet(width=3)
    maps = [module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert maps == [3, 6, 12, 24, 48, 96, 48, 24, 12, 6, 3]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 11


def test_activations_are_leaky_by_a_fifth_down_and_rectified_up() -> None:
    network = unet()
    slopes = [module.negative_slope for module in network.encoder.modules() if isinstance(module, nn.LeakyReLU)]
    assert slopes == [0.2] * 6
    assert sum(isinstance(module, nn.ReLU) for module in network.decoder.modules()) == 5


# Several targets


@pytest.mark.parametrize("channels", [1, 2])
def test_two_targets_have_a_mask_for_each_channel_and_share_all_but_the_last_layer(channels: int) -> None:
    network = unet(channels, width=2, targets=2).eval()
    with torch.inference_mode():
        assert network(torch.rand(3, channels, 70, 64)).shape == (3, 2 * channels, 70, 64)
    sizes, single = (
        {name: value.numel() for name, value in one.named_parameters()}
        for one in (network, unet(channels, width=2, targets=1))
    )
    differing = {name for name in sizes if sizes[name] != single[name]}
    assert differing == {"to_mask.weight", "to_mask.bias"}
    assert all(sizes[name] == 2 * single[name] for name in differing)


def test_masks_of_the_first_target_come_before_those_of_the_second() -> None:
    network = unet(channels=2, width=2, targets=2).eval()
    with torch.no_grad():
        assert network.to_mask.bias is not None
        network.to_mask.weight.zero_()
        network.to_mask.bias.copy_(torch.tensor([-20.0, -20, 20, 20]))
        first, second = network(torch.rand(1, 2, 64, 64)).chunk(network.targets, dim=1)
    assert (first < 1e-6).all()
    assert (second > 1 - 1e-6).all()


# Scaled input


def test_measured_scaling_gives_roots_of_mean_0_and_deviation_1_in_every_bin() -> None:
    random = np.random.default_rng(0)
    slope = 10 ** -np.linspace(0, 4, 20)
    magnitudes = torch.from_numpy((random.gamma(0.5, 1, (30, 1, 64, 20)) * slope).astype(np.float32))
    scaling = InputScaling(20)
    scaling.measure(magnitudes)
    scaled = scaling(magnitudes)
    torch.testing.assert_close(scaled.mean(dim=(0, 1, 2)), torch.zeros(20), rtol=0, atol=1e-3)
    torch.testing.assert_close(scaled.std(dim=(0, 1, 2)), torch.ones(20), rtol=1e-3, atol=0)


def test_bins_that_are_always_silent_stay_finite() -> None:
    scaling = InputScaling(3)
    scaling.measure(torch.zeros(4, 1, 8, 3))
    assert torch.isfinite(scaling(torch.rand(2, 1, 8, 3))).all()
    assert not scaling(torch.zeros(2, 1, 8, 3)).any()


def test_scaling_is_learned_and_part_of_the_network_only_where_asked_for() -> None:
    network = unet(width=2, scaled_bins=64)
    network(torch.rand(2, 1, 64, 64)).square().sum().backward()
    assert network.scaling is not None
    for parameter in network.scaling.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    assert unet(width=2).scaling is None
    assert not any(name.startswith("scaling") for name in unet(width=2).state_dict())


def test_network_with_scaled_input_takes_any_number_of_frames() -> None:
    network = unet(width=2, scaled_bins=50).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 70, 50)).shape == (1, 1, 70, 50)


# Dropout


def test_dropout_silences_its_share_of_the_values_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    for share in (0.2, 0.5):
        dropped = nn.Dropout(share)(torch.full((8, 16, 20, 30), 3.0))
        is_kept = dropped != 0
        count = dropped.numel()
        assert abs(float(is_kept.float().mean()) - (1 - share)) < 4 * np.sqrt(share * (1 - share) / count)
        torch.testing.assert_close(dropped[is_kept], torch.full_like(dropped[is_kept], 3 / (1 - share)))


def test_dropout_draws_anew_each_time_and_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    dropout, values = nn.Dropout(0.5), torch.rand(2, 3, 8, 8)
    assert not torch.equal(dropout(values), dropout(values))
    assert torch.equal(dropout.eval()(values), values)
    assert torch.equal(nn.Dropout(0)(values), values)
