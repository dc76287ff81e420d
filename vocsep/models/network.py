"""What runs a trained network on raw magnitudes: the interface that masks are predicted through, and its engines.

Nothing here imports torch: `vocsep.models.torch_network` and `vocsep.models.onnx_network` do what an engine needs.
"""

from typing import Literal, Protocol

from vocsep.arrays import Spectrogram

EngineName = Literal["torch", "onnx"]


class MaskNetwork(Protocol):
    """A network in evaluation mode. Calls may come from several threads at once."""

    @property
    def channels(self) -> int:
        """Audio channels of one example: 1, or 2 for stereo."""
        ...

    @property
    def targets(self) -> int:
        """1: masks of the vocals; 2: of vocals and accompaniment."""
        ...

    @property
    def context_frames(self) -> int:
        """Frames before and after a block that decide its masks (see `NetworkArchitecture`)."""
        ...

    def __call__(self, magnitudes: Spectrogram) -> Spectrogram:
        """Masks `(batch, targets * channels, frames, bins)` of raw magnitudes `(batch, channels, frames, bins)`.

        Float32 both; the channels of the first target come first. Any number of frames.
        """
        ...
