import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vocsep.model import UNet

# Jansson et al. 2017: feature maps into and out of every 5x5 convolution, the decoder's inputs with the encoder's
# output of their own size joined to them.
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
    network = UNet(channels, width)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(4, channels, 128, 64))
    return network.eval()


@pytest.mark.parametrize("channels", [1, 2])
def test_number_of_parameters_is_that_of_the_papers_layer_table(channels: int) -> None:
    count = sum(parameter.numel() for parameter in UNet(channels).parameters())
    assert count == parameters_of_the_paper(channels)
    assert count == {1: 9_821_809, 2: 9_823_010}[channels]


@pytest.mark.parametrize("width", [1, 3, 16])
def test_feature_maps_double_from_the_width_to_32_times_the_width(width: int) -> None:
    maps = [module.out_channels for module in UNet(1, width).encoder.modules() if isinstance(module, nn.Conv2d)]
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
    network = UNet(channels, width=1).eval()
    with torch.inference_mode():
        mask = network(100 * torch.rand(batch, channels, frames, bins))
    assert mask.shape == (batch, channels, frames, bins)
    assert torch.all((mask >= 0) & (mask <= 1))


@pytest.mark.parametrize(("frames", "bins"), [(1, 512), (1, 1), (128, 513), (63, 513), (65, 512), (129, 511)])
def test_sizes_beside_the_multiples_of_64_keep_their_shape(frames: int, bins: int) -> None:
    with torch.inference_mode():
        assert UNet(width=2).eval()(torch.rand(1, 1, frames, bins)).shape == (1, 1, frames, bins)


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
    network = UNet(channels, width=2)
    network(torch.rand(2, channels, 128, 128)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_dropout_of_half_stands_in_exactly_the_first_three_decoder_blocks() -> None:
    network = UNet()
    rates = [[module.p for module in block.modules() if isinstance(module, nn.Dropout)] for block in network.decoder]
    assert rates == [[0.5], [0.5], [0.5], [], []]
    assert sum(isinstance(module, nn.modules.dropout._DropoutNd) for module in network.modules()) == 3


def test_activations_are_leaky_by_a_fifth_down_and_rectified_up() -> None:
    network = UNet()
    slopes = [module.negative_slope for module in network.encoder.modules() if isinstance(module, nn.LeakyReLU)]
    assert slopes == [0.2] * 6
    assert sum(isinstance(module, nn.ReLU) for module in network.decoder.modules()) == 5
