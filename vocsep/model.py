"""The U-Net of Jansson et al. 2017: magnitude spectrogram in, soft mask out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 6
STRIDE_PRODUCT = 2**LEVELS


class UNet(nn.Module):
    """Mask-predicting U-Net for singing-voice separation.

    Six encoder blocks (5x5 convolution, stride 2, batch norm, leaky ReLU 0.2) double the feature maps from
    `width` (16) to `32 * width` (512); six decoder blocks (5x5 transposed convolution, stride 2, batch norm,
    ReLU, dropout 0.5 in the first three) mirror them, each fed with the encoder output of its own size; the
    last one ends in a sigmoid.

    Frames and bins are padded with zeros to multiples of 64 inside and cropped back, so that any number of
    either may come in.

    Parameters
    ----------
    channels
        Audio channels that one example holds: 1 treats every channel of a song on its own, 2 sees stereo.
    width
        Feature maps of the first encoder block.

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

    def __init__(self, channels: int = 1, width: int = 16) -> None:
        super().__init__()
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
                block.append(nn.Dropout(0.5))
            decoder.append(nn.Sequential(*block))
        self.decoder = nn.ModuleList(decoder)
        self.to_mask = nn.ConvTranspose2d(2 * maps[1], channels, 5, stride=2, padding=2, output_padding=1)

    def forward(self, magnitudes: Tensor) -> Tensor:
        """Mask in [0, 1] for `magnitudes`, both `(batch, channels, frames, bins)` float."""
        frames, bins = magnitudes.shape[-2:]
        hidden = functional.pad(magnitudes, (0, -bins % STRIDE_PRODUCT, 0, -frames % STRIDE_PRODUCT))
        skips: list[Tensor] = []
        for block in self.encoder:
            hidden = block(hidden)
            skips.append(hidden)
        hidden = skips.pop()
        for block in self.decoder:
            hidden = torch.cat([block(hidden), skips.pop()], dim=1)
        mask: Tensor = torch.sigmoid(self.to_mask(hidden))
        return mask[..., :frames, :bins]
