"""Makers of patches from small stores, and both ways of stretching."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.store import SpectrogramStore
from tests.vocsep.patches.test_tiers import make_tier
from vocsep.kernels import StoredRows, fill_patch
from vocsep.patches.maker import PatchMaker, stretch, stretched_bins
from vocsep.patches.pool import SongPool
from vocsep.patches.sampling import Augmentation, PatchSampler

Array = NDArray[Any]


WAYS = ("by_rows", "together")


FRAMES = 16


EVERYTHING = Augmentation(
    remix=0.6, gain=0.6, gain_db=12, swap=0.5, pitch=0.5, pitch_semitones=7, tempo=0.5, tempo_factor=1.5
)


def sampler(
    store: SpectrogramStore, augmentation: Augmentation = EVERYTHING, batch_size: int = 12, frames: int = FRAMES
) -> PatchSampler:
    pool = SongPool(store)
    return PatchSampler(
        pool, batch_size=batch_size, frames=frames, augmentation=augmentation, seed=5, is_silent=pool.is_silent
    )


def maker(
    store: SpectrogramStore,
    tier: str = "host",
    channels: int = 1,
    *,
    frames: int = FRAMES,
    seed: int = 0,
    with_accompaniment: bool = False,
) -> PatchMaker:
    made = PatchMaker(make_tier(tier, store, channels), frames=frames, seed=seed, with_accompaniment=with_accompaniment)
    made.together = tier == "device"
    return made


def one(way: str, frames: int, out_frames: int, pitch: float, magnitudes: Tensor) -> Tensor:
    """Stretch one item `(channels, frames, bins)`."""
    channels, read, bins = magnitudes.shape
    out = torch.full((1, channels, out_frames, bins), np.nan)
    factor, kept = np.array([pitch], dtype=np.float32), np.array([frames])
    if way == "together":
        stretch(magnitudes[None], factor, kept, out)
        return out[0]
    rows = np.ascontiguousarray(magnitudes.numpy()).reshape(-1, bins)
    first = read * np.arange(channels)[None]
    source = StoredRows(rows, first, kept, kept, *stretched_bins(factor, bins), np.ones(1, dtype=np.float32))
    none, zero = out[:0].numpy(), np.zeros(1, dtype=np.int64)
    remixed, cosines = np.array([False]), np.zeros(1, dtype=np.float32)
    fill_patch(0, source, source, source, remixed, zero, cosines, out.numpy(), none, torch.empty_like(out).numpy())
    return out[0]


def cosines_of(mixture: Tensor, vocals: Tensor, accompaniment: Tensor) -> Array:
    """Cosine of the relative phase that a mix was made with; NaN where one of the sources is hardly there."""
    m, v, a = (part.double().numpy() for part in (mixture, vocals, accompaniment))
    is_clear = np.minimum(v, a) > 0.05 * np.maximum(v, a)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines: Array = np.where(is_clear, (m**2 - v**2 - a**2) / (2 * v * a), np.nan)
    return cosines
