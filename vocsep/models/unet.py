"""The U-Net of Jansson et al. 2017: strided convolutions to a sixty-fourth of the size and back."""

import torch
from torch import Tensor, nn

from vocsep.models.architecture import UNetArchitecture
from vocsep.models.mask_module import MaskModule

LEVELS = 6


class UNet(MaskModule):
    """Mask-predicting U-Net for singing-voice separation.

    Six encoder blocks (5x5 convolution, stride 2, batch norm, leaky ReLU 0.2) double the feature maps from
    `width` (16) to `32 * width` (512); six decoder blocks (5x5 transposed convolution, stride 2, batch norm,
    ReLU, dropout in the first three) mirror them, each fed with the encoder output of the same size; the
    last one ends in a sigmoid.

    Parameters
    ----------
    dropout
        Share of the values that each dropout sets to 0 in training.

    References
    ----------
    Jansson, Humphrey, Montecchio, Bittner, Kumar, Weyde: "Singing voice separation with deep U-Net
    convolutional networks", ISMIR 2017.

    Examples
    --------
    >>> mask = UNet(UNetArchitecture(channels=1))(torch.rand(4, 1, 128, 512))
    >>> mask.shape
    torch.Size([4, 1, 128, 512])
    """

    frame_stride = bin_stride = 2**LEVELS

    def __init__(self, architecture: UNetArchitecture, dropout: float = 0.5) -> None:
        super().__init__(architecture)
        channels, targets = architecture.channels, architecture.targets
        maps = [channels] + [architecture.width * 2**level for level in range(LEVELS)]
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

    def layers(self, hidden: Tensor) -> Tensor:
        """See `MaskModule.layers`."""
        skips: list[Tensor] = []
        for block in self.encoder:
            hidden = block(hidden)
            skips.append(hidden)
        hidden = skips.pop()
        for block in self.decoder:
            hidden = torch.cat([block(hidden), skips.pop()], dim=1)
        values: Tensor = self.to_mask(hidden)
        return values
