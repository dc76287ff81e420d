"""Networks by name."""

import functools

import torch

from vocsep.models.architecture import NetworkName, TfcTdfArchitecture, UNetArchitecture
from vocsep.models.mask_module import MaskModule
from vocsep.models.tfc_tdf import TfcTdf
from vocsep.models.unet import UNet

NETWORKS: dict[NetworkName, type[MaskModule]] = {"unet": UNet, "tfc-tdf": TfcTdf}


def build_network(architecture: UNetArchitecture | TfcTdfArchitecture, dropout: float = 0.5) -> MaskModule:
    """New network of an architecture; `dropout` is the U-Net's, the only one that has any."""
    if isinstance(architecture, UNetArchitecture):
        return UNet(architecture, dropout)
    return TfcTdf(architecture)


@functools.cache
def step_values(architecture: UNetArchitecture | TfcTdfArchitecture, frames: int, bins: int) -> tuple[int, int]:
    """Weights of a network, and values that its layers give for one patch of `frames` and `bins`.

    Nothing is allocated, however large the network.
    """
    given = 0

    def count(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        nonlocal given
        given += output.numel()

    with torch.device("meta"):
        network = build_network(architecture)
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        network(torch.empty(1, architecture.channels, frames, bins))
    return sum(weight.numel() for weight in network.parameters()), given
