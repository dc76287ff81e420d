"""Networks run by PyTorch, on a CPU or an accelerator."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from storage.errors import UserError
from storage.registry import ModelVersion
from vocsep.arrays import Spectrogram
from vocsep.config import validated
from vocsep.models.architecture import parse_architecture, require_bins
from vocsep.models.mask_module import MaskModule
from vocsep.models.networks import build_network
from vocsep.models.precision import Precision
from vocsep.spectrograms.config import SpectrogramConfig

# Bytes of one number in a file of weights, at most, and of what precedes the numbers.
LARGEST_ITEM = 8
LARGEST_HEADER = 1 << 24


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    UserError
        If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name}: cannot be used here ({reason}); use auto or cpu") from None
    return device


def load_network(model: ModelVersion) -> MaskModule:
    """Network of a saved model, on the CPU, in evaluation mode.

    Raises
    ------
    UserError
        If the model's files are damaged or of a kind that this version does not know.
    """
    try:
        architecture = parse_architecture(model.description.get("architecture"))
        if "spectrogram" in model.description:
            require_bins(architecture, validated(SpectrogramConfig, model.description["spectrogram"], "spectrogram"))
    except UserError as error:
        raise UserError(f"{model.path}: {error}") from None
    # Sizes that the weights do not have must not be asked memory for.
    with torch.device("meta"):
        network = build_network(architecture)
    expected = network.state_dict()
    most_bytes = LARGEST_HEADER + sum(LARGEST_ITEM * value.numel() for value in expected.values())
    weights = {name: torch.from_numpy(value) for name, value in model.load_weights(most_bytes).items()}
    # The bundled model is stored in half precision.
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    different = sorted(expected.keys() ^ weights.keys()) or sorted(
        name
        for name, value in expected.items()
        if value.shape != weights[name].shape or value.is_floating_point() != weights[name].is_floating_point()
    )
    if different:
        raise UserError(f"{model.path}: weights do not fit the architecture ({different[0]})")
    network.load_state_dict(weights, assign=True)
    return network.eval()


def folded(network: MaskModule) -> MaskModule:
    """A copy in evaluation mode whose batch norms are part of the convolutions before them: the same masks, faster."""
    copied = copy.deepcopy(network).eval()
    for block in [module for module in copied.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(block) - 1):
            convolution, norm = block[index], block[index + 1]
            if isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                transposed = isinstance(convolution, nn.ConvTranspose2d)
                block[index] = fuse_conv_bn_eval(convolution, norm, transposed)
                block[index + 1] = nn.Identity()
    return copied


class TorchNetwork:
    """A network in evaluation mode as `vocsep.models.network.MaskNetwork`, on the device that it is on."""

    def __init__(self, network: MaskModule, precision: Precision = "float32") -> None:
        self._network = network
        self._precision = precision
        self._device = next(network.parameters()).device

    @property
    def channels(self) -> int:
        """Audio channels of one example."""
        return self._network.channels

    @property
    def targets(self) -> int:
        """Sources that there are masks for."""
        return self._network.targets

    @property
    def context_frames(self) -> int:
        """Frames before and after a block that decide its masks."""
        return self._network.context_frames

    @torch.inference_mode()
    def __call__(self, magnitudes: Spectrogram) -> Spectrogram:
        """Masks of raw magnitudes (see `MaskNetwork`)."""
        batch = torch.from_numpy(magnitudes).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
            masks = self._network(batch.contiguous(memory_format=torch.channels_last))
        found: Spectrogram = masks.float().cpu().numpy()
        return found
