"""Tiny untrained models, and something to separate with them."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from storage.registry import ModelRegistry, ModelVersion
from vocsep.arrays import Waveform
from vocsep.models.architecture import UNetArchitecture
from vocsep.models.torch_network import TorchNetwork
from vocsep.models.unet import UNet
from vocsep.separation.separator import Separator
from vocsep.spectrograms.config import load_spectrogram_config


def unet(channels: int = 1, width: int = 16, dropout: float = 0.5, **more: Any) -> UNet:
    """A new U-Net; `more` is of its architecture."""
    return UNet(UNetArchitecture.model_validate({"channels": channels, "width": width} | more), dropout)


@functools.cache
def lively(channels: int, seed: int = 0, targets: int = 1, scaled_bins: int | None = None) -> UNet:
    """An untrained network whose masks differ from place to place, in evaluation mode; not to be changed."""
    torch.manual_seed(seed)
    network = unet(channels, width=2, targets=targets, scaled_bins=scaled_bins)
    with torch.no_grad():
        for _ in range(20):
            network(10 * torch.rand(2, channels, 128, scaled_bins or 128) ** 4)
    return network.eval()


def lively_separator(channels: int = 2, preset: str = "fine") -> Separator:
    """A separator with such a network."""
    return Separator(TorchNetwork(lively(channels)), load_spectrogram_config(preset), jobs=2)


def add_model(
    folder: Path, *, channels: int = 1, preset: str = "fine", seed: int = 0, targets: int = 1
) -> ModelVersion:
    """Save such a network as the next version and make it the champion."""
    registry = ModelRegistry(folder)
    weights = {name: value.numpy() for name, value in lively(channels, seed, targets).state_dict().items()}
    description = {
        "architecture": {"name": "unet", "channels": channels, "width": 2, "targets": targets, "scaled_bins": None},
        "spectrogram": load_spectrogram_config(preset).model_dump(mode="json"),
        "targets": ["vocals", "accompaniment"][:targets],
    }
    model = registry.add(weights, description)
    assert model.version is not None
    registry.promote(model.version)
    return model


def music(seed: int, channels: int, sample_rate: int, seconds: float = 0.7) -> Waveform:
    """Chords and noise: something with structure in every band."""
    random = np.random.default_rng(seed)
    samples = round(seconds * sample_rate)
    times = np.arange(samples) / sample_rate
    waveform = 0.05 * random.standard_normal((channels, samples))
    for frequency in (110, 220.5, 441, 1500, 3100):
        waveform += 0.1 * np.sin(2 * np.pi * frequency * times + random.uniform(0, 6, (channels, 1)))
    return waveform.astype(np.float32)
