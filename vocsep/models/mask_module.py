"""What all networks have in common: raw magnitudes in, masks for raw magnitudes out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from vocsep.models.architecture import NetworkArchitecture
from vocsep.models.objective import INPUTS, OUTPUTS, Estimate

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


class MaskModule(nn.Module, ABC):
    """Base of the networks, which add the layers between scaled input and last layer.

    For every input and output within, masks for raw magnitudes come out for the raw magnitudes that go in, so
    that those who use it need not know how it was trained. Frames and bins are padded with zeros to multiples of its
    strides inside and cropped back, so that any number of frames may come in.

    Attributes
    ----------
    channels, targets, input, output, drops_dc, context_frames
        See `vocsep.models.architecture.NetworkArchitecture`.
    scaling
        Learned scaling of the input `root`; None for others.
    frame_stride, bin_stride
        Frames and bins that one position of the coarsest layer covers.
    to_mask
        The last layer.
    """

    frame_stride: int
    bin_stride: int
    to_mask: nn.ConvTranspose2d

    def __init__(self, architecture: NetworkArchitecture) -> None:
        super().__init__()
        self.channels = architecture.channels
        self.targets = architecture.targets
        self.input = architecture.input
        self.output = architecture.output
        self.drops_dc = architecture.drops_dc
        self.context_frames = architecture.context_frames
        self.scaling = None if architecture.scaled_bins is None else InputScaling(architecture.scaled_bins)

    @abstractmethod
    def layers(self, hidden: Tensor) -> Tensor:
        """Numbers of the last layer `(batch, targets * channels, frames, bins)` for scaled input of padded size."""

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
        padding = (0, -bins % self.bin_stride, 0, -frames % self.frame_stride)
        return self.layers(functional.pad(self.scaled(mixture), padding))[..., :frames, :bins]
