"""Training patches from draws: reading them, changing pitch, tempo, level and channels, and mixing them."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vocsep.arrays import Flags, Floats, Integers
from vocsep.kernels import StoredRows, fill_patch
from vocsep.patches.batch import Batch
from vocsep.patches.sampling import Draws, SourceDraws
from vocsep.patches.tiers import Excerpts, PatchTier, gather_rows

# Random phases are taken from a table at random offsets: drawing new ones for every patch costs more than all the rest.
PHASES = 1 << 22


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
    threads
        How many patches are made at a time, on the processor.

    Attributes
    ----------
    together
        Whether all patches of a batch are worked on at once, as on devices, or row by row.
    """

    def __init__(self, tier: PatchTier, *, frames: int, seed: int, with_accompaniment: bool, threads: int = 1) -> None:
        self.together = tier.device.type != "cpu"
        self._tier = tier
        self._frames = frames
        self._with_accompaniment = with_accompaniment
        generator = torch.Generator().manual_seed(seed)
        self._cosines = torch.cos(torch.rand(PHASES, generator=generator) * (2 * math.pi)).to(tier.device)
        if frames * tier.bins >= PHASES:
            raise ValueError(f"a patch of {frames} x {tier.bins} is larger than the table of phases")
        self._threads = threads
        self._helpers = ThreadPoolExecutor(max(1, threads - 1), "patches")

    def make(self, draws: Draws, out: Batch | None = None) -> Batch:
        """The patches, on the tier's device; in the memory of `out`, an earlier batch that is done with, if given."""
        if out is None:
            out = self._room(len(draws.remixed))
        if self.together:
            self._make_together(draws, out)
        else:
            self._make_by_rows(draws, out)
        return out

    def _room(self, count: int) -> Batch:
        """Memory for `count` patches."""
        shape = (count, self._tier.channels, self._frames, self._tier.bins)
        mixture = torch.empty(shape, device=self._tier.device)
        accompaniment = torch.empty_like(mixture) if self._with_accompaniment else None
        return Batch(mixture, torch.empty_like(mixture), accompaniment)

    def _first_phases(self, draws: Draws) -> Integers:
        """Where in the table the phases of each patch begin."""
        first: Integers = (draws.phase * (PHASES - self._frames * self._tier.bins)).astype(np.int64)
        return first

    def _excerpts(self, source: str, draws: SourceDraws) -> Excerpts:
        channel = draws.swap.astype(np.int64) if self._tier.channels == 2 else draws.channel
        return self._tier.excerpts(source, draws.track, channel, draws.start, draws.frames)

    # On the processor

    def _make_by_rows(self, draws: Draws, out: Batch) -> None:
        everything = np.full(len(draws.remixed), True)
        vocals = self._stored_rows("vocals", draws.vocals, everything)
        # What no patch asks for is not looked at.
        accompaniment = mixture = vocals
        if self._with_accompaniment or draws.remixed.any():
            wanted = everything if self._with_accompaniment else draws.remixed
            accompaniment = self._stored_rows("accompaniment", draws.accompaniment, wanted)
        if not draws.remixed.all():
            mixture = self._stored_rows("mixture", draws.vocals, ~draws.remixed)
        rest = out.vocals[:0] if out.accompaniment is None else out.accompaniment
        rooms = [room.numpy() for room in (out.vocals, rest, out.mixture)]
        sources = (vocals, accompaniment, mixture)
        remixed, phases = np.ascontiguousarray(draws.remixed), self._first_phases(draws)
        cosines = self._cosines.numpy()
        # One by one: a helper can share its processor with threads of the last step that wait for the next one.
        patches = iter(range(len(remixed)))

        def fill() -> None:
            for patch in patches:
                fill_patch(patch, *sources, remixed, phases, cosines, *rooms)

        helpers = [self._helpers.submit(fill) for _ in range(self._threads - 1)]
        fill()
        for helper in helpers:
            helper.result()

    def _stored_rows(self, source: str, draws: SourceDraws, wanted: Flags) -> StoredRows:
        """One source of the patches; of those that are not wanted, nothing is read."""
        items = np.flatnonzero(wanted)
        rows, some_first, some_available = self._excerpts(source, draws.items(items))
        first = np.zeros((len(wanted), self._tier.channels), dtype=np.int64)
        available = np.zeros(len(wanted), dtype=np.int64)
        first[items], available[items] = some_first, some_available
        stored = rows.view(torch.uint16) if rows.dtype == torch.float16 else rows
        taken, filled = stretched_bins(draws.pitch, self._tier.bins)
        frames, gain = np.ascontiguousarray(draws.frames), np.ascontiguousarray(draws.gain)
        return StoredRows(stored.numpy(), first, available, frames, taken, filled, gain)

    # On a device, where every call costs more than its work

    def _make_together(self, draws: Draws, out: Batch) -> None:
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
        rows = self._cosines.as_strided((PHASES - size, size), (1, 1))
        cosines = rows.index_select(0, torch.from_numpy(self._first_phases(draws)).to(rows.device))
        return cosines.view(-1, 1, self._frames, self._tier.bins)

    def _read(self, source: str, draws: SourceDraws, out: Tensor) -> None:
        """One source of some patches, with its changes."""
        excerpts, frames = self._excerpts(source, draws), int(draws.frames.max())
        if frames == self._frames == draws.frames.min() and (draws.pitch == 1).all():
            gather_rows(excerpts, out)
        else:
            read = torch.empty((len(out), self._tier.channels, frames, self._tier.bins), device=out.device)
            gather_rows(excerpts, read)
            stretch(read, draws.pitch, draws.frames, out)
        if (draws.gain != 1).any():
            out.mul_(torch.from_numpy(draws.gain).to(out.device).view(-1, 1, 1, 1))


def stretched_bins(pitch: Floats, bins: int) -> tuple[Integers, Integers]:
    """How many of the lowest bins of transposed sources are heard, and how many bins they fill, each `(patches,)`.

    Above 1 the highest bins are lost; below 1 those that nothing is known of are 0.
    """
    taken = np.rint(bins / np.maximum(1.0, pitch.astype(np.float64))).astype(np.int64)
    filled = np.rint(bins * np.minimum(1.0, pitch.astype(np.float64))).astype(np.int64)
    return np.maximum(1, taken), np.maximum(1, filled)


def stretch(magnitudes: Tensor, pitch: Floats, frames: Integers, out: Tensor) -> None:
    """Play magnitudes at another pitch and tempo, by linear interpolation along both axes, all at once on a device.

    Parameters
    ----------
    magnitudes
        `(batch, channels, most frames of any item, bins)`.
    pitch
        Factor on each item's frequencies.
    frames
        How many of each item's frames become those of the result.
    out
        For the result, `(batch, channels, frames, bins)`.
    """

    def positions(old: Tensor, new: Tensor | int, count: int, whole: int) -> Tensor:
        """Where the new places are among the old ones: their middles, from -1 at one end of the whole to 1."""
        place = (torch.arange(count, device=out.device) + 0.5) * (old / new)
        return place.clamp(min=0.5).minimum(old - 0.5) * (2 / whole) - 1

    counts = (frames, *stretched_bins(pitch, out.shape[3]))
    kept, known, made = (torch.from_numpy(count).to(out.device)[:, None] for count in counts)
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
