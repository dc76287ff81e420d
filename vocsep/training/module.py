"""The network, its loss and its optimizer, as Lightning takes them."""

from collections.abc import Callable
from typing import Literal

import lightning
import torch
from torch import Tensor

from vocsep.models.objective import distance
from vocsep.models.unet import UNet
from vocsep.patches.maker import Batch
from vocsep.training.config import TrainConfig


def pick_precision(device: str, wanted: str) -> Literal["32-true", "bf16-mixed"]:
    """Lightning's name for the precision; `auto` takes bfloat16 only where the hardware computes it.

    On CPUs without bfloat16 instructions autocast is many times slower than float32.
    """
    if wanted == "auto":
        if device == "cuda":
            wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
        elif device == "cpu":
            capabilities = torch.cpu.get_capabilities()
            wanted = "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32"
        else:
            wanted = "32"
    return "bf16-mixed" if wanted == "bf16" else "32-true"


class TrainingModule(lightning.LightningModule):
    """The network, its loss and its optimiser."""

    def __init__(self, config: TrainConfig, network: UNet) -> None:
        super().__init__()
        self.config = config
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.gradient_norm = 0.0
        self.guard: Callable[[float, float], None] = lambda loss, gradient_norm: None
        self._loss = torch.zeros(())

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Loss of a batch: the mean over the targets."""
        mixture = batch.mixture.contiguous(memory_format=torch.channels_last)
        sources = [self.network.kept(source) for source in batch[1:] if source is not None]
        losses = [
            distance(self.config.objective, estimate, source)
            for estimate, source in zip(self.network.estimates(mixture), sources, strict=True)
        ]
        loss = torch.stack(losses).mean()
        self._loss = loss.detach()
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Measure the gradient's norm, shorten it where the settings say so, and let the guard look at it."""
        longest = self.config.gradient_clip or float("inf")
        self.gradient_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters(), longest))
        self.guard(float(self._loss), self.gradient_norm)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW; the run sets the learning rate at every step."""
        fused = self.device.type in ("cpu", "cuda")
        if self.config.optimizer == "adamw":
            return torch.optim.AdamW(self.parameters(), weight_decay=self.config.weight_decay, fused=fused)
        return torch.optim.Adam(self.parameters(), fused=fused)
