"""Training patches from draws: reading them, changing pitch, tempo, level and channels, and mixing them."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vocsep.patch_tiers import PatchTier
from vocsep.sampling import Draws, Floats, Integers, SourceDraws

# Random phases are taken from a table at random offsets: drawing new ones for every patch costs more than all the rest.
PHASES = 1 << 22


class Batch(NamedTuple):
    """Patches of raw magnitudes, each `(batch, channels, frames, bins)` float32; accompaniment only where asked for."""

    mixture: Tensor
    vocals: Tensor
    accompaniment: Tensor | None


class PatchMaker:
    """Makes the patches that a step's draws describe.

    The magnitude of a remix needs the phases, which are not stored; they are drawn at random instead:
    |V + A|^2 = V^2 + A^2 + 2 V A cos(phi), phi uniform and common to the channels.

    Parameters
    ----------
    frames
        Frames per patch.
    with_accompaniment
        Whether the batch holds the accompaniment too.
    """

    def __init__(self, tier: PatchTier, *, frames: int, seed: int, with_accompaniment: bool) -> None:
        self._tier = tier
        self._frames = frames
        self._with_accompaniment = with_accompaniment
        generator = torch.Generator().manual_seed(seed)
        self._cosines = torch.cos(torch.rand(PHASES, generator=generator) * (2 * math.pi)).to(tier.device)
        if frames * tier.bins >= PHASES:
            raise ValueError(f"a patch of {frames} x {tier.bins} is larger than the table of phases")

    def make(self, draws: Draws, out: Batch | None = None) -> Batch:
        """The patches, on the tier's device; in the memory of `out`, an earlier batch that is done with, if given."""
        count = len(draws.remixed)
        if out is None:
            out = self._room(count)
        step = count if self._tier.together else 1
        for first in range(0, count, step):
            part = slice(first, first + step)
            accompaniment = None if out.accompaniment is None else out.accompaniment[part]
            self._fill(draws.items(part), Batch(out.mixture[part], out.vocals[part], accompaniment))
        return out

    def _room(self, count: int) -> Batch:
        """Memory for so many patches."""
        shape = (count, self._tier.channels, self._frames, self._tier.bins)
        mixture = torch.empty(shape, device=self._tier.device)
        accompaniment = torch.empty_like(mixture) if self._with_accompaniment else None
        return Batch(mixture, torch.empty_like(mixture), accompaniment)

    def _fill(self, draws: Draws, out: Batch) -> None:
        self._read("vocals", draws.vocals, out.vocals)
        excerpts = np.flatnonzero(~draws.remixed)
        if self._with_accompaniment or len(excerpts) < len(draws.remixed):
            accompaniment = torch.empty_like(out.vocals) if out.accompaniment is None else out.accompaniment
            self._read("accompaniment", draws.accompaniment, accompaniment)
        if len(excerpts) == len(draws.remixed):
            self._read("mixture", draws.vocals, out.mixture)
            return
        remix_magnitudes(out.vocals, accompaniment, self._phases(draws), out.mixture)
        if len(excerpts):
            mixtures = torch.empty_like(out.mixture[: len(excerpts)])
            self._read("mixture", draws.vocals.items(excerpts), mixtures)
            out.mixture[excerpts] = mixtures

    def _phases(self, draws: Draws) -> Tensor:
        """Cosines of random phases `(patches, 1, frames, bins)`."""
        size = self._frames * self._tier.bins
        first = (draws.phase * (PHASES - size)).astype(np.int64)
        if len(first) == 1:
            cosines = self._cosines[first[0] : first[0] + size]
        else:
            rows = self._cosines.as_strided((PHASES - size, size), (1, 1))
            cosines = rows.index_select(0, torch.from_numpy(first).to(rows.device))
        return cosines.view(-1, 1, self._frames, self._tier.bins)

    def _read(self, source: str, draws: SourceDraws, out: Tensor) -> None:
        """One source of some patches, with its changes."""
        channel = draws.swap.astype(np.int64) if self._tier.channels == 2 else draws.channel
        frames = int(draws.frames.max())
        if frames == self._frames == draws.frames.min() and (draws.pitch == 1).all():
            self._tier.read(source, draws.track, channel, draws.start, frames, out)
        else:
            stretch(self._tier.read(source, draws.track, channel, draws.start, frames), draws.pitch, draws.frames, out)
        if (draws.gain != 1).any():
            out.mul_(torch.from_numpy(draws.gain).to(out.device).view(-1, 1, 1, 1))


def stretch(magnitudes: Tensor, pitch: Floats, frames: Integers, out: Tensor) -> None:
    """Play magnitudes at another pitch and tempo, by linear interpolation along both axes.

    Parameters
    ----------
    magnitudes
        `(batch, channels, most frames of any item, bins)`.
    pitch
        Factor on each item's frequencies. Above 1 its highest bins are lost; below 1 those that nothing is known of
        are 0.
    frames
        How many of each item's frames become those of the result.
    out
        For the result, `(batch, channels, frames, bins)`.
    """
    bins = out.shape[3]
    taken = [max(1, round(bins / max(1.0, factor))) for factor in pitch.tolist()]
    filled = [max(1, round(bins * min(1.0, factor))) for factor in pitch.tolist()]
    if len(out) == 1:
        _stretch_one(magnitudes[:, :, : frames[0]], taken[0], filled[0], out)
    else:
        _stretch_each(magnitudes, frames, np.array(taken), np.array(filled), out)


def _stretch_one(magnitudes: Tensor, taken: int, filled: int, out: Tensor) -> None:
    """Make all frames to those of `out`, and the lowest `taken` bins to its lowest `filled`; 0 above."""
    frames = out.shape[2]
    if magnitudes.shape[2] != frames:
        # As images of one row and as many maps as there are bins, the last in memory: several times faster.
        images = magnitudes.flatten(0, 1).transpose(1, 2).unsqueeze(2)
        images = functional.interpolate(images, size=(1, frames), mode="bilinear")
        magnitudes = images.squeeze(2).transpose(1, 2).view_as(out)
    if taken != filled:
        magnitudes = functional.interpolate(magnitudes[0, ..., :taken], size=filled, mode="linear")[None]
    out[..., :filled] = magnitudes
    out[..., filled:] = 0


def _stretch_each(magnitudes: Tensor, frames: Integers, taken: Integers, filled: Integers, out: Tensor) -> None:
    """The same for many items at once, each in its own way."""

    def positions(old: Tensor, new: Tensor | int, count: int, whole: int) -> Tensor:
        """Where the new places lie among the old ones: their middles, from -1 at one end of the whole to 1."""
        place = (torch.arange(count, device=out.device) + 0.5) * (old / new)
        return place.clamp(min=0.5).minimum(old - 0.5) * (2 / whole) - 1

    kept, known, made = (torch.from_numpy(counts).to(out.device)[:, None] for counts in (frames, taken, filled))
    rows = positions(kept, out.shape[2], out.shape[2], magnitudes.shape[2])
    columns = positions(known, made, out.shape[3], out.shape[3])
    shape = (len(out), *out.shape[2:])
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
    sampled = functional.grid_sample(magnitudes, grid, padding_mode="border", align_corners=False)
    is_made = torch.arange(out.shape[3], device=out.device) < made
    torch.mul(sampled, is_made[:, None, None, :], out=out)


def remix_magnitudes(vocals: Tensor, accompaniment: Tensor, cosines: Tensor, out: Tensor | None = None) -> Tensor:
    """Magnitude of a sum of two spectrograms whose relative phase has the given cosines: sqrt(V^2 + A^2 + 2 V A cos).

    All `(batch, channels, frames, bins)` float32, the result in `out` if given; the cosines may have one channel for
    all.
    """
    power = torch.addcmul(accompaniment, vocals, cosines, value=2, out=out)
    power.mul_(accompaniment).addcmul_(vocals, vocals)
    return power.clamp_(min=0).sqrt_()
