"""The network that a training begins with: a new one, fitted to the songs where its settings say so, or a saved one."""

import numpy as np
import torch
from torch import Tensor

from storage.errors import UserError
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from vocsep.models.architecture import parse_architecture
from vocsep.models.mask_module import MaskModule
from vocsep.models.networks import build_network
from vocsep.models.objective import fitting_bias, oracle_mask
from vocsep.models.torch_network import load_network
from vocsep.patches.pool import SongPool
from vocsep.patches.sampling import PatchSampler
from vocsep.patches.tiers import StreamTier, gather_rows
from vocsep.preprocessing.config import spectrogram_config
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_architecture

# Measurements use the patches of this number of steps.
MEASURED_STEPS = 16


def initial_network(
    config: TrainConfig, store: SpectrogramStore, registry: ModelRegistry, pool: SongPool, sampler: PatchSampler
) -> MaskModule:
    """A new network, or that of the model to start from.

    Raises
    ------
    UserError
        If the model to start from is another kind of network, or the songs that are measured are not finite.
    """
    architecture = describe_architecture(config, store)
    network = build_network(architecture, config.dropout)
    if config.fine_tune is None:
        if network.scaling is not None:
            network.scaling.measure(network.kept(_first_patches("mixture", pool, sampler)))
        if config.objective.bias is not None:
            for index, target in enumerate(config.targets):
                bias = config.objective.bias
                value = bias if isinstance(bias, float) else _measured_bias(config, network, pool, sampler, target)
                channels = slice(index * network.channels, (index + 1) * network.channels)
                torch.nn.init.constant_(_bias(network)[channels], value)
        return network
    model = registry.open(config.fine_tune)
    trained = load_network(model)
    wanted = architecture.model_dump(mode="json") | {"spectrogram": spectrogram_config(store).model_dump(mode="json")}
    held = parse_architecture(model.says("architecture")).model_dump(mode="json")
    held |= {"spectrogram": model.says("spectrogram")}
    if different := [name for name in wanted if held.get(name) != wanted[name]]:
        name = different[0]
        raise UserError(f"{model.path}: cannot be fine-tuned to this: {name} is {held.get(name)}, not {wanted[name]}")
    network.load_state_dict(trained.state_dict())
    return network


def _bias(network: MaskModule) -> Tensor:
    assert network.to_mask.bias is not None
    return network.to_mask.bias


def _measured_bias(
    config: TrainConfig, network: MaskModule, pool: SongPool, sampler: PatchSampler, target: str
) -> float:
    """Bias that fits the mean of the oracle masks."""
    mixtures, sources = (_first_patches(source, pool, sampler) for source in ("mixture", target))
    mean = float(oracle_mask(network.kept(mixtures), network.kept(sources)).mean())
    return fitting_bias(config.objective.output, mean)


def _first_patches(source: str, pool: SongPool, sampler: PatchSampler) -> Tensor:
    """One source at the places of the first steps, unchanged and not remixed, `(patches, 1, frames, bins)`.

    Songs that lack it are left out.
    """
    tier = StreamTier(pool, channels=1)
    found: list[Tensor] = []
    for step in range(MEASURED_STEPS):
        places = sampler.draw(step).vocals
        places = places.items(np.flatnonzero([source in pool.tracks[index].arrays for index in places.track]))
        if not len(places.track):
            continue
        frames = np.full(len(places.track), PATCH_FRAMES)
        patches = torch.empty((len(frames), 1, PATCH_FRAMES, tier.bins))
        gather_rows(tier.excerpts(source, places.track, places.channel, places.start, frames), patches)
        for index, patch in enumerate(patches):
            if not torch.isfinite(patch).all():
                number = int(places.track[index])
                raise UserError(
                    f"{pool.store(number).path}: not finite: {pool.tracks[number].name} (frames from "
                    f"{places.start[index]} on); look at this song, and run `vocsep store verify`"
                )
        found.append(patches)
    return torch.cat(found)
