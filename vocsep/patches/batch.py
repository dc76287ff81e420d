"""The patches of a step."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Patches of raw magnitudes, each `(batch, channels, frames, bins)` float32; accompaniment only where asked for."""

    mixture: Tensor
    vocals: Tensor
    accompaniment: Tensor | None

    def sources(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Mixture, a source and the rest: of the vocals, then of the accompaniment where there is one."""
        yield self.mixture, self.vocals, self.accompaniment
        if self.accompaniment is not None:
            yield self.mixture, self.accompaniment, self.vocals

    def items(self, part: slice) -> "Batch":
        """Some of the patches, side by side in memory."""
        accompaniment = None if self.accompaniment is None else self.accompaniment[part].contiguous()
        return Batch(self.mixture[part].contiguous(), self.vocals[part].contiguous(), accompaniment)
