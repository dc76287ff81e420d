"""The beginning of a training without the training: its network and the patches of its first steps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from storage.store import SpectrogramStore
from vocsep.cores import limit_torch_threads
from vocsep.models.mask_module import MaskModule
from vocsep.models.objective import distance, truth
from vocsep.models.registry import open_registry
from vocsep.patches.maker import PatchMaker
from vocsep.patches.pool import SongPool
from vocsep.patches.tiers import StreamTier
from vocsep.preprocessing.config import spectrogram_config
from vocsep.spectrograms.config import PATCH_FRAMES
from vocsep.training.batches import patch_sampler
from vocsep.training.config import TrainConfig
from vocsep.training.initial_network import initial_network


@dataclass(frozen=True)
class Probe:
    """What a run of some settings begins with.

    Attributes
    ----------
    network
        With the weights that the run begins with, on the CPU.
    mixture, vocals
        Patches of the first steps `(patches, channels, frames, bins)`; with the target `in-phase` that part of the
        vocals.
    """

    config: TrainConfig
    network: MaskModule
    mixture: Tensor
    vocals: Tensor

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Mixture and vocals of each step."""
        size = self.config.batch_size
        starts = range(0, len(self.mixture), size)
        return [(self.mixture[start : start + size], self.vocals[start : start + size]) for start in starts]

    @torch.no_grad()
    def start_loss(self) -> float:
        """Mean loss of the vocals over the steps, in training mode, with the weights of the beginning."""
        torch.manual_seed(self.config.seed)
        self.network.train()
        losses = [
            distance(self.config.objective, self.network.estimates(mixture)[0], self.network.kept(vocals))
            for mixture, vocals in self.batches()
        ]
        return float(torch.stack(losses).mean())


def open_probe(config: TrainConfig, store: SpectrogramStore, steps: int) -> Probe:
    """The network of a training that starts from no model, and the patches of its first `steps` steps."""
    limit_torch_threads()
    channels = min(config.channels, spectrogram_config(store).channels)
    config = config.model_copy(update={"channels": channels, "fine_tune": None})
    pool = SongPool(store)
    sampler = patch_sampler(config, pool)
    torch.manual_seed(config.seed)
    network = initial_network(config, store, open_registry(store.path), pool, sampler)
    maker = PatchMaker(
        StreamTier(pool, config.channels),
        frames=PATCH_FRAMES,
        seed=config.seed,
        with_accompaniment=config.compares_accompaniment,
    )
    batches = [maker.make(sampler.draw(step)) for step in range(steps)]
    mixture = torch.cat([batch.mixture for batch in batches])
    vocals = torch.cat([truth(config.objective, *next(batch.sources())) for batch in batches])
    return Probe(config, network, mixture, vocals)
