"""The U-Net of Jansson et al. 2017: magnitude spectrogram in, soft mask out."""

from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from storage.errors import UserError
from vocsep.models.objective import INPUTS, OUTPUTS, Estimate
from vocsep.models.objective_config import InputName, OutputName

LEVELS = 6
STRIDE_PRODUCT = 2**LEVELS
SMALLEST_DEVIATION = 1e-3


class InputScaling(nn.Module):
    """Brings raw magnitudes into the range that convolutions learn from: (sqrt(x) - mean) * scale, per bin.

    Music's magnitudes span five orders and fall by 40 dB from the lowest bins to the highest. `mean` and `scale` begin
    with what the training songs have (`measure`) and are learned on, as in Open-Unmix (Stöter et al. 2019), which
    does it without the root. The mask that comes out is still that of the raw magnitudes.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(bins))
        self.scale = nn.Parameter(torch.ones(bins))

    @torch.no_grad()
    def measure(self, magnitudes: Tensor) -> None:
        """Begin with mean and deviation of the roots of `(..., bins)` magnitudes."""
        roots = magnitudes.sqrt().flatten(end_dim=-2)
        self.mean.copy_(roots.mean(dim=0))
        self.scale.copy_(1 / roots.std(dim=0).clamp(min=SMALLEST_DEVIATION))

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Scaled `(..., bins)`."""
        return (magnitudes.sqrt() - self.mean) * self.scale


class UNet(nn.Module):
    """Mask-predicting U-Net for singing-voice separation.

    Six encoder blocks (5x5 convolution, stride 2, batch norm, leaky ReLU 0.2) double the feature maps from
    `width` (16) to `32 * width` (512); six decoder blocks (5x5 transposed convolution, stride 2, batch norm,
    ReLU, dropout in the first three) mirror them, each fed with the encoder output of its own size; the
    last one ends in a sigmoid.

    Whatever the network sees and gives inside, masks for raw magnitudes come out for the raw magnitudes that go in, so
    that those who use it need not know how it was trained.

    Frames and bins are padded with zeros to multiples of 64 inside and cropped back, so that any number of
    either may come in.

    Parameters
    ----------
    channels
        Audio channels that one example holds: 1 treats every channel of a song on its own, 2 sees stereo.
    width
        Feature maps of the first encoder block.
    targets
        How many sources there are masks for.
    dropout
        Share of the values that each dropout sets to 0 in training.
    scaled_bins
        Bins of an input that goes through `InputScaling`; None where `input` is another.
    input, output
        What the network makes of raw magnitudes, and what its numbers mean: names in `vocsep.models.objective`.
    drops_dc
        Whether the lowest of the bins that come in stays outside; it gets the mask of the second.

    References
    ----------
    Jansson, Humphrey, Montecchio, Bittner, Kumar, Weyde: "Singing voice separation with deep U-Net
    convolutional networks", ISMIR 2017.

    Examples
    --------
    >>> mask = UNet(channels=1)(torch.rand(4, 1, 128, 512))
    >>> mask.shape
    torch.Size([4, 1, 128, 512])
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        targets: int = 1,
        dropout: float = 0.5,
        scaled_bins: int | None = None,
        input: InputName = "raw",
        output: OutputName = "mask",
        drops_dc: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.targets = targets
        self.input = input
        self.output = output
        self.drops_dc = drops_dc
        self.scaling = None if scaled_bins is None else InputScaling(scaled_bins)
        maps = [channels] + [width * 2**level for level in range(LEVELS)]
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(maps[level], maps[level + 1], 5, stride=2, padding=2, bias=False),
                nn.BatchNorm2d(maps[level + 1]),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for level in range(LEVELS)
        )
        decoder: list[nn.Module] = []
        for level in reversed(range(1, LEVELS)):
            inputs = maps[level + 1] if level == LEVELS - 1 else 2 * maps[level + 1]
            block = [
                nn.ConvTranspose2d(inputs, maps[level], 5, stride=2, padding=2, output_padding=1, bias=False),
                nn.BatchNorm2d(maps[level]),
                nn.ReLU(inplace=True),
            ]
            if level >= LEVELS - 3:
                block.append(nn.Dropout(dropout))
            decoder.append(nn.Sequential(*block))
        self.decoder = nn.ModuleList(decoder)
        self.to_mask = nn.ConvTranspose2d(2 * maps[1], targets * channels, 5, stride=2, padding=2, output_padding=1)

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Masks in [0, 1] for `magnitudes`.

        Parameters
        ----------
        magnitudes
            `(batch, channels, frames, bins)` float.

        Returns
        -------
        masks
            `(batch, targets * channels, frames, bins)`: all channels of the first target, then those of the next.
        """
        masks = [estimate.mask().clamp(0, 1) for estimate in self.estimates(magnitudes)]
        mask = torch.cat(masks, dim=1)
        return torch.cat([mask[..., :1], mask], dim=-1) if self.drops_dc else mask

    def estimates(self, magnitudes: Tensor) -> list[Estimate]:
        """What the network finds for each of its targets, in the network's own bins, as training looks at it."""
        mixture = self.kept(magnitudes)
        values = self.last_layer(mixture).float()
        return [OUTPUTS[self.output](one, mixture) for one in values.chunk(self.targets, dim=1)]

    def kept(self, magnitudes: Tensor) -> Tensor:
        """The bins of `(..., bins)` that the network sees."""
        return magnitudes[..., 1:] if self.drops_dc else magnitudes

    def scaled(self, mixture: Tensor) -> Tensor:
        """What the first layer sees of the bins that are kept."""
        scaled: Tensor = self.scaling(mixture) if self.scaling is not None else INPUTS[self.input](mixture)
        return scaled

    def last_layer(self, mixture: Tensor) -> Tensor:
        """Numbers of the last layer `(batch, targets * channels, frames, bins)` for the bins that are kept."""
        frames, bins = mixture.shape[-2:]
        hidden = functional.pad(self.scaled(mixture), (0, -bins % STRIDE_PRODUCT, 0, -frames % STRIDE_PRODUCT))
        skips: list[Tensor] = []
        for block in self.encoder:
            hidden = block(hidden)
            skips.append(hidden)
        hidden = skips.pop()
        for block in self.decoder:
            hidden = torch.cat([block(hidden), skips.pop()], dim=1)
        values: Tensor = self.to_mask(hidden)
        return values[..., :frames, :bins]


def complete(architecture: dict[str, Any]) -> dict[str, Any]:
    """A model file's `architecture` with what files of before had no words for."""
    scaled_bins = architecture.get("scaled_bins")
    return {"input": "raw" if scaled_bins is None else "root", "output": "mask", "drops_dc": False} | architecture


def build_network(architecture: dict[str, Any], dropout: float = 0.5) -> UNet:
    """Network of a model file's `architecture`.

    Raises
    ------
    UserError
        If the architecture is not one that this version knows.
    """
    if architecture.get("name") != "unet":
        raise UserError(f"architecture {architecture.get('name')!r} is not known to this version of vocsep")
    held = complete(architecture)
    channels, width, targets, bins = (held.get(key) for key in ("channels", "width", "targets", "scaled_bins"))
    sizes = [width] if bins is None else [width, bins]
    known = all(isinstance(size, int) and size >= 1 for size in sizes) and channels in (1, 2) and targets in (1, 2)
    known = known and held["input"] in get_args(InputName) and held["output"] in get_args(OutputName)
    if not known or (held["input"] == "root") != (bins is not None) or not isinstance(held["drops_dc"], bool):
        raise UserError(f"architecture {architecture} is not known to this version of vocsep")
    return UNet(channels, width, targets, dropout, bins, held["input"], held["output"], held["drops_dc"])  # type: ignore[arg-type]
