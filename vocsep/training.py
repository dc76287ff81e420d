"""Training a U-Net from the patches of a store, with whole-song validation in dB, into the model registry."""

import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil, cos, pi
from pathlib import Path
from typing import Any, Literal, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from storage.errors import UserError
from storage.files import new_folder, write_json
from storage.registry import ModelRegistry, ModelVersion, Weights
from storage.store import SpectrogramStore
from vocsep.config import Settings
from vocsep.model import UNet
from vocsep.objective import LOSSES
from vocsep.preprocessing import StoreConfig
from vocsep.progress import progress_bar
from vocsep.sampling import PatchSampler, prefetched
from vocsep.separation import pick_device
from vocsep.validation import validation_sdr

DEFAULT_MINUTES = 4.0
PATCH_FRAMES = 128

ProgressHook = Callable[[float], None]

log = logging.getLogger(__name__)


class TrainConfig(Settings):
    """How a model is trained.

    Attributes
    ----------
    steps, epochs, max_minutes
        The budget; whichever is used up first ends the run, and the learning rate follows it. An epoch is as many
        patches as lie side by side in the training songs. With none of them: 4 minutes.
    batch_size
        Patches of 128 frames per step.
    learning_rate, warmup
        Adam's highest rate; it rises linearly over the first `warmup` share of the budget, then falls along a cosine.
    loss
        `l1` or `mse` between mask * mixture and vocals, raw magnitudes.
    remix
        Share of patches whose vocals and accompaniment come from different places.
    channels, width
        Of the network: 1 treats stereo channels separately; feature maps of its first block.
    validations
        How often whole validation songs are scored; the best-scoring weights are kept.
    device, precision
        `auto` takes a GPU when there is one, and bfloat16 where the machine computes it natively.
    """

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    max_minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup: float = Field(default=0.03, ge=0, lt=1)
    loss: Literal["l1", "mse"] = "l1"
    remix: float = Field(default=0.8, ge=0, le=1)
    channels: Literal[1, 2] = 1
    width: int = Field(default=16, ge=1)
    validations: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    version: int
    model_path: str
    run_folder: str
    steps: int
    seconds: float
    valid_sdr_db: float
    floor_sdr_db: float
    is_champion: bool


class Budget:
    """How much of the allowed steps and seconds is used."""

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        self.steps = steps
        self.seconds = seconds
        self.started = time.monotonic()

    def __str__(self) -> str:
        """For people: `500 steps`, `4 minutes`, or both."""
        parts = [f"{self.steps} steps"] if self.steps else []
        parts += [f"{self.seconds / 60:g} minutes"] if self.seconds else []
        return " or ".join(parts)

    def used(self, step: int) -> float:
        """Share in [0, 1] after `step` steps."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = (time.monotonic() - self.started) / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))


def learning_rate_factor(used: float, warmup: float) -> float:
    """Share of the highest learning rate at share `used` of the budget: linear rise, then half a cosine down to 0."""
    if used < warmup:
        return used / warmup
    return 0.5 * (1 + cos(pi * (used - warmup) / (1 - warmup)))


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


class _Module(lightning.LightningModule):
    """The network, its loss and its optimiser."""

    def __init__(self, config: TrainConfig, budget: Budget) -> None:
        super().__init__()
        self.config = config
        self.budget = budget
        self.loss = LOSSES[config.loss]
        self.network = UNet(config.channels, config.width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        mixture = batch["mixture"].contiguous(memory_format=torch.channels_last)
        mask = self.network(mixture).float()
        loss = self.loss(mask, mixture, batch["vocals"])
        if not torch.isfinite(loss):
            raise UserError(
                f"loss is {loss.item()} at step {self.global_step} (patches of {', '.join(batch['songs'])}); "
                "lower the learning rate, or check these songs with `vocsep store verify`"
            )
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.config.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(self.budget.used(step + 1), self.config.warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Batches(IterableDataset[dict[str, Any]]):
    """The sampler's batches as tensors."""

    def __init__(self, sampler: PatchSampler) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in prefetched(self._sampler.batches()):
            yield {
                "mixture": torch.from_numpy(batch.mixture),
                "vocals": torch.from_numpy(batch.vocals),
                "songs": batch.songs,
            }


class _Run(Callback):
    """Ends the budget, scores whole validation songs, keeps the best weights, and shows all of it."""

    def __init__(
        self, store: SpectrogramStore, config: TrainConfig, budget: Budget, on_progress: ProgressHook | None
    ) -> None:
        self.store = store
        self.config = config
        self.budget = budget
        self.on_progress = on_progress
        self.floor_sdr_db = validation_sdr(store, None, config.channels)
        self.best_sdr_db = float("-inf")
        self.best_weights: Weights = {}
        self.history: list[dict[str, float]] = []
        self.validations = 0
        self.loss = 0.0
        self.bar = progress_bar(
            100, "train", "%", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        loss = float(outputs["loss"])
        self.loss = loss if step == 1 else 0.98 * self.loss + 0.02 * loss
        used = self.budget.used(step)
        if step % 10 == 0:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            trainer.loggers[0].log_metrics({"train/loss": loss, "train/learning_rate": rate}, step)
        speed = step / (time.monotonic() - self.budget.started)
        best = f"{self.best_sdr_db:.2f} dB" if self.history else "-"
        self.bar.set_postfix_str(f"step {step}, {speed:.1f} steps/s, loss {self.loss:.4f}, best {best}", refresh=False)
        self.bar.update(100 * used - self.bar.n)
        if self.on_progress is not None:
            self.on_progress(used)
        if int(used * self.config.validations) > self.validations:
            self.validations = int(used * self.config.validations)
            self._validate(trainer, cast(UNet, pl_module.network))
        trainer.should_stop = used >= 1.0

    def _validate(self, trainer: lightning.Trainer, network: UNet) -> None:
        network.eval()
        sdr_db = validation_sdr(self.store, network, self.config.channels)
        network.train()
        step = trainer.global_step
        self.history.append({"step": step, "valid_sdr_db": sdr_db, "train_loss": self.loss})
        trainer.loggers[0].log_metrics({"valid/sdr_db": sdr_db}, step)
        self.bar.write(f"  step {step}: validation SDR {sdr_db:.2f} dB, loss {self.loss:.4f}", file=sys.stderr)
        if sdr_db > self.best_sdr_db:
            self.best_sdr_db = sdr_db
            self.best_weights = {
                name: value.detach().cpu().contiguous().clone().numpy() for name, value in network.state_dict().items()
            }


def fit(
    config: TrainConfig,
    store: SpectrogramStore,
    registry: ModelRegistry,
    runs: Path,
    on_progress: ProgressHook | None = None,
) -> TrainResult:
    """Train a model and add the weights that scored best on the validation songs to the registry.

    The new model becomes the champion if there is none, if the champion was validated on other data, or if the new one
    scores better on the same.

    Parameters
    ----------
    runs
        Folder in which a folder of this run is made: TensorBoard log, `run.json`.
    on_progress
        Called after every step with the used share of the budget.

    Raises
    ------
    UserError
        If the store has no training or validation songs, or the loss is not finite.
    """
    _quiet_lightning()
    lightning.seed_everything(config.seed, verbose=False)
    sampler = PatchSampler(
        store,
        batch_size=config.batch_size,
        channels=config.channels,
        frames=PATCH_FRAMES,
        remix=config.remix,
        seed=config.seed,
    )
    device = pick_device(config.device).type
    precision = pick_precision(device, config.precision)
    budget = _budget(config, store)
    callback = _Run(store, config, budget, on_progress)
    run_folder = new_folder(runs, datetime.now().strftime("%Y%m%d-%H%M%S"))
    module = _Module(config, budget)
    trainer = lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=1,
        precision=precision,
        max_steps=-1,
        logger=TensorBoardLogger(runs, name="", version=run_folder.name),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    log.info(
        "training on %d songs (%d for validation) for %s, on %s, %s; log: tensorboard --logdir %s",
        len(store.tracks("train")),
        len(store.tracks("valid")),
        budget,
        device,
        precision,
        runs,
    )
    budget.started = time.monotonic()
    with callback.bar:
        trainer.fit(module, DataLoader(_Batches(sampler), batch_size=None))
    seconds = time.monotonic() - budget.started
    description = describe_model(config, store) | {
        "metrics": {"valid_sdr_db": callback.best_sdr_db, "valid_floor_sdr_db": callback.floor_sdr_db},
        "training": config.model_dump(mode="json")
        | {"steps_done": trainer.global_step, "seconds": round(seconds, 1), "device": device, "precision": precision},
        "history": callback.history,
    }
    model = registry.add(callback.best_weights, description)
    assert model.version is not None
    is_champion = _promote_if_better(registry, model)
    result = TrainResult(
        version=model.version,
        model_path=str(model.path),
        run_folder=str(run_folder),
        steps=trainer.global_step,
        seconds=seconds,
        valid_sdr_db=callback.best_sdr_db,
        floor_sdr_db=callback.floor_sdr_db,
        is_champion=is_champion,
    )
    write_json(run_folder / "run.json", description | {"model_version": model.version})
    return result


def _budget(config: TrainConfig, store: SpectrogramStore) -> Budget:
    steps = [config.steps] if config.steps else []
    if config.epochs:
        patches = sum(track.frames * track.channels for track in store.tracks("train"))
        patches //= PATCH_FRAMES * config.channels
        steps.append(max(1, ceil(config.epochs * patches / config.batch_size)))
    minutes = config.max_minutes
    if not steps and minutes is None:
        minutes = DEFAULT_MINUTES
    return Budget(min(steps) if steps else None, minutes * 60 if minutes else None)


def describe_model(config: TrainConfig, store: SpectrogramStore) -> dict[str, Any]:
    """What a model file says of the model's origin, as JSON-like values."""
    manifest = store.manifest
    return {
        "format": "vocsep-model",
        "format_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "architecture": {"name": "unet", "channels": config.channels, "width": config.width},
        "spectrogram": StoreConfig.model_validate(manifest.config).spectrogram.model_dump(mode="json"),
        "objective": {"input": "raw magnitude", "output": "sigmoid mask", "loss": config.loss},
        "targets": ["vocals"],
        "data": {
            "dataset": manifest.dataset["kind"],
            "digest": manifest.data_digest,
            "train": sorted(track.name for track in store.tracks("train")),
            "valid": sorted(track.name for track in store.tracks("valid")),
        },
        "versions": {"vocsep": version("vocsep"), "torch": torch.__version__, "python": platform.python_version()},
        "licence": "Use of these weights is bound by the licences of the songs that they were trained on.",
    }


def _promote_if_better(registry: ModelRegistry, model: ModelVersion) -> bool:
    champion = registry.champion()
    assert model.version is not None
    if champion is not None:
        held = registry.open(str(champion)).description
        same_data = held["data"]["digest"] == model.description["data"]["digest"]
        if same_data and held["metrics"]["valid_sdr_db"] >= model.description["metrics"]["valid_sdr_db"]:
            return False
    registry.promote(model.version)
    return True


def _quiet_lightning() -> None:
    """Silence what Lightning tells about hardware and data-loader workers: patches need no workers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
