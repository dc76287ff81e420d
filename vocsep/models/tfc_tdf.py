"""A small U-Net whose blocks see all frequencies at once (TFC-TDF, Choi et al. 2020)."""

import torch
from torch import Tensor, nn

from vocsep.models.architecture import TfcTdfArchitecture
from vocsep.models.mask_module import MaskModule

LEVELS = 3
FOLDED_FRAMES, FOLDED_BINS = 2, 4
BOTTLENECK = 8
"""How many times narrower the layer is that sees all frequencies."""


def normalized(maps: int, layer: nn.Module) -> list[nn.Module]:
    """Batch norm and ReLU before a layer."""
    return [nn.BatchNorm2d(maps), nn.ReLU(inplace=True), layer]


class AcrossBins(nn.Linear):
    """Fully connected layer along frequency of `(batch, maps, frames, bins)`, without biases."""

    def __init__(self, bins: int, outputs: int) -> None:
        super().__init__(bins, outputs, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, maps, frames, outputs)`, in the memory format of what comes in."""
        batch, maps, frames, bins = hidden.shape
        if not hidden.is_contiguous(memory_format=torch.channels_last):
            return super().forward(hidden)
        # Convolutions keep maps last. A product per frame does, too; one of all frames would copy them there and back.
        by_frame = hidden.permute(0, 2, 3, 1).reshape(batch * frames, bins, maps)
        products = torch.bmm(self.weight.expand(batch * frames, -1, -1), by_frame)
        return products.view(batch, frames, -1, maps).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Convolution over time and frequency, fully connected layers along frequency, and a second convolution."""

    def __init__(self, maps: int, bins: int) -> None:
        super().__init__()
        narrow = max(1, bins // BOTTLENECK)
        self.before = nn.Sequential(*normalized(maps, nn.Conv2d(maps, maps, 3, padding=1, bias=False)))
        self.across = nn.Sequential(
            *normalized(maps, AcrossBins(bins, narrow)),
            *normalized(maps, AcrossBins(narrow, bins)),
        )
        self.after = nn.Sequential(*normalized(maps, nn.Conv2d(maps, maps, 3, padding=1, bias=False)))

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, maps, frames, bins)`, of the same shape."""
        local = self.before(hidden)
        local = local + self.across(local)
        summed: Tensor = hidden + self.after(local)
        return summed


class TfcTdf(MaskModule):
    """U-Net of three levels with a block of convolutions and frequency-wise layers on each.

    The first layer folds four neighbouring bins of two frames into feature maps, the last one unfolds them; between
    levels, strided convolutions halve frames and bins and add `width` maps. A singer's harmonics are in all bins at
    once: layers that connect them learn in minutes what stacks of small convolutions need hours for.

    References
    ----------
    Choi, Kim, Chung, Lee, Jung: "Investigating U-Nets with various intermediate blocks for spectrogram-based singing
    voice separation", ISMIR 2020.

    Examples
    --------
    >>> mask = TfcTdf(TfcTdfArchitecture(channels=2, bins=512))(torch.rand(4, 2, 128, 512))
    >>> mask.shape
    torch.Size([4, 2, 128, 512])
    """

    frame_stride = FOLDED_FRAMES * 2**LEVELS
    bin_stride = FOLDED_BINS * 2**LEVELS

    def __init__(self, architecture: TfcTdfArchitecture) -> None:
        super().__init__(architecture)
        channels, width = architecture.channels, architecture.width
        bins = -(-architecture.bins // self.bin_stride) * 2**LEVELS
        maps = [width * (level + 1) for level in range(LEVELS + 1)]
        fold = (FOLDED_FRAMES, FOLDED_BINS)
        self.fold = nn.Conv2d(channels, width, fold, stride=fold)
        self.encoder = nn.ModuleList(Block(maps[level], bins >> level) for level in range(LEVELS))
        self.down = nn.ModuleList(
            nn.Sequential(*normalized(maps[level], nn.Conv2d(maps[level], maps[level + 1], 2, stride=2, bias=False)))
            for level in range(LEVELS)
        )
        self.coarsest = Block(maps[LEVELS], bins >> LEVELS)
        self.up = nn.ModuleList(
            nn.Sequential(
                *normalized(maps[level + 1], nn.ConvTranspose2d(maps[level + 1], maps[level], 2, stride=2, bias=False))
            )
            for level in reversed(range(LEVELS))
        )
        self.join = nn.ModuleList(
            nn.Conv2d(2 * maps[level], maps[level], 1, bias=False) for level in reversed(range(LEVELS))
        )
        self.decoder = nn.ModuleList(Block(maps[level], bins >> level) for level in reversed(range(LEVELS)))
        self.to_mask = nn.ConvTranspose2d(width, architecture.targets * channels, fold, stride=fold)

    def layers(self, hidden: Tensor) -> Tensor:
        """See `MaskModule.layers`."""
        hidden = self.fold(hidden)
        skips: list[Tensor] = []
        for block, down in zip(self.encoder, self.down, strict=True):
            skips.append(block(hidden))
            hidden = down(skips[-1])
        hidden = self.coarsest(hidden)
        for up, join, block in zip(self.up, self.join, self.decoder, strict=True):
            hidden = block(join(torch.cat([up(hidden), skips.pop()], dim=1)))
        values: Tensor = self.to_mask(hidden)
        return values
