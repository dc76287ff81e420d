"""Training a U-Net from the patches of a store, with whole-song validation in dB, into the model registry."""

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from vocsep.augmentation import Batch, PatchMaker
from vocsep.inference_torch import pick_device
from vocsep.initial_network import initial_network
from vocsep.model import UNet
from vocsep.model_description import (
    describe_model,
    spectrogram_config,
    training_digest,
)
from vocsep.objective import distance
from vocsep.patch_tiers import PatchTier, open_tier
from vocsep.prefetch import PREFETCH_DEPTH, prefetched
from vocsep.processes import leave_group
from vocsep.processes import processes as processes_here
from vocsep.run_folder import RunFolder, open_run
from vocsep.sampling import Draws, PatchSampler
from vocsep.train_config import PATCH_FRAMES, Budget, TrainConfig, patch_sampler
from vocsep.training_checks import check_bins, check_memory, check_songs, check_sound
from vocsep.training_run import TrainingRun

ProgressHook = Callable[[float], None]

# Lightning holds the batch in use and the next one; behind them some wait in the queue, and one is being made.
BATCHES_IN_MEMORY = 2 + PREFETCH_DEPTH + 1

log = logging.getLogger(__name__)


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
    validation_share: float
    is_champion: bool

    def lines(self) -> list[str]:
        """For people."""
        champion = ", now the champion" if self.is_champion else ""
        return [
            f"train: {self.steps} steps in {self.seconds / 60:.1f} minutes; validation SDR {self.valid_sdr_db:.2f} dB "
            f"(mixture: {self.floor_sdr_db:.2f} dB)",
            f"  model {self.version} in {self.model_path}{champion}",
            f"  curves: tensorboard --logdir {Path(self.run_folder).parent}, and {self.run_folder}/metrics.csv",
        ]


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


class StepBatches(IterableDataset[Batch]):
    """The batches of the steps from `first_step` (0 is the first of all) on, of this process's share."""

    def __init__(self, tier: PatchTier, sampler: PatchSampler, config: TrainConfig, rank: int, processes: int) -> None:
        self._sampler = sampler
        self._maker = PatchMaker(
            tier, frames=PATCH_FRAMES, seed=config.seed, with_accompaniment="accompaniment" in config.targets
        )
        self.first_step = 0
        self._rank = rank
        self._processes = processes
        self._streamed = tier.name == "stream"
        self.seconds_waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        batches = prefetched(self._batches()) if self._streamed else self._batches()
        while True:
            started = time.perf_counter()
            batch = next(batches)
            self.seconds_waited += time.perf_counter() - started
            yield batch

    def places(self, step: int) -> list[str]:
        """Where each patch of this process's share of a step comes from, for people."""
        return self._sampler.places(self._draw(step))

    def _draw(self, step: int) -> Draws:
        return self._sampler.draw(step).share(self._rank, self._processes)

    def _batches(self) -> Iterator[Batch]:
        if self._streamed:
            # Of the thread that works ahead: more of them would take turns with those of the steps.
            torch.set_num_threads(1)
        used: list[Batch | None] = [None] * BATCHES_IN_MEMORY
        step = self.first_step
        while True:
            slot = step % BATCHES_IN_MEMORY
            batch = used[slot] = self._maker.make(self._draw(step), used[slot])
            yield batch
            step += 1


def fit(
    config: TrainConfig,
    store: SpectrogramStore,
    registry: ModelRegistry,
    runs: Path,
    resume: str = "auto",
    on_progress: ProgressHook | None = None,
    promote: bool = True,
) -> TrainResult | None:
    """Train a model and add the weights that scored best on the validation songs to the registry.

    The new model becomes the champion if there is none, if the champion was validated on other data, or if the new one
    scores better on the same; without `promote` the champion stays what it is.

    Under torchrun or SLURM every process calls this, and shares the batches; one of them writes all files.

    Parameters
    ----------
    runs
        Folder of the folders of runs: `run.json`, `metrics.csv`, TensorBoard log, checkpoints.
    resume
        `auto` goes on with the newest unfinished run of the same settings and songs, if there is one; `never` begins
        anew; or the folder of a run.
    on_progress
        Called after every step with the used share of the budget.

    Returns
    -------
    result
        None in all but the first of several processes.

    Raises
    ------
    UserError
        If the songs, the settings and the machine do not go together, or loss or gradients are not finite.
    TrainingStopped
        If the process was told to end; the run is saved and can go on.
    """
    _quiet_lightning()
    config = config.model_copy(update={"channels": min(config.channels, spectrogram_config(store).channels)})
    check_songs(store, config)
    check_bins(store, config)
    sampler = patch_sampler(config, store)
    check_sound(store)
    rank, processes, local = processes_here()
    if config.batch_size % processes:
        raise UserError(f"batch_size {config.batch_size} cannot be shared by {processes} processes; take a multiple")
    device = pick_device(config.device)
    check_memory(config, spectrogram_config(store).bins, device, processes)
    lightning.seed_everything(config.seed, verbose=False)
    network = initial_network(config, store, registry, sampler)
    module = TrainingModule(config, network)
    run = open_run(runs, resume, config.deciding(), training_digest(store)) if rank == 0 else None
    training = TrainingRun(run, module, store, config, Budget.of(config, store), on_progress)
    trainer = _trainer(config, device, processes, local, training)
    tier, tier_text = open_tier(store, _sources(config), config.channels, device, config.data)
    if run is not None:
        log.info(
            "training on %d songs (%d for validation) for %s, on %s, %s; %s; run: %s",
            len(store.tracks("train")),
            len(store.tracks("valid")),
            training.budget,
            f"{processes} x {device.type}" if processes > 1 else device.type,
            trainer.precision,
            tier_text,
            run.path,
        )
        if run.checkpoint is not None:
            log.info("going on after step %d of %s", run.checkpoint.step, run.path)
    batches = StepBatches(tier, sampler, config, rank, processes)
    training.follow(batches)
    try:
        trainer.fit(module, DataLoader(batches, batch_size=None))
        training.finish()
        return _register(config, store, registry, run, training, promote) if run is not None else None
    finally:
        training.close()
        leave_group()


def _register(
    config: TrainConfig,
    store: SpectrogramStore,
    registry: ModelRegistry,
    run: RunFolder,
    training: TrainingRun,
    promote: bool,
) -> TrainResult:
    origin = {"folder": str(run.path), "created": run.description["created"]}
    summary = training.summary()
    description = describe_model(config, store) | {
        "metrics": {"valid_sdr_db": training.best_sdr_db, "valid_floor_sdr_db": training.floor_sdr_db},
        "training": config.model_dump(mode="json") | summary | {"run": origin},
        "history": training.history,
    }
    # One that was killed right after it had added its model does not add it again.
    model = _model_of_run(registry, origin, training.step) or registry.add(training.best_weights, description)
    assert model.version is not None
    is_champion = _promote_if_better(registry, model) if promote else registry.champion() == model.version
    run.write("finished", **description | {"model_version": model.version, "created": origin["created"]})
    return TrainResult(
        version=model.version,
        model_path=str(model.path),
        run_folder=str(run.path),
        steps=training.step,
        seconds=summary["seconds"],
        valid_sdr_db=training.best_sdr_db,
        floor_sdr_db=training.floor_sdr_db,
        validation_share=summary["validation_share"],
        is_champion=is_champion,
    )


def _model_of_run(registry: ModelRegistry, origin: dict[str, str], step: int) -> ModelVersion | None:
    """The model that a run added at its end after `step`; one of an earlier end of it is another."""
    for version in reversed(registry.versions()):
        with contextlib.suppress(UserError):
            model = registry.open(str(version))
            training = model.description.get("training", {})
            if training.get("run") == origin and training.get("steps_done") == step:
                return model
    return None


def _sources(config: TrainConfig) -> tuple[str, ...]:
    """The spectrograms that training reads."""
    sources = ["vocals"]
    if config.augmentation.remix > 0 or "accompaniment" in config.targets:
        sources.append("accompaniment")
    if config.augmentation.remix < 1:
        sources.append("mixture")
    return tuple(sources)


def _trainer(
    config: TrainConfig, device: torch.device, processes: int, local: int, training: TrainingRun
) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(device.type, device.type),
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision=pick_precision(device.type, config.precision),
        max_steps=-1,
        logger=False,
        callbacks=[training],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _promote_if_better(registry: ModelRegistry, model: ModelVersion) -> bool:
    assert model.version is not None
    why = "trained: the first, better on the same validation songs, or of other songs"
    while True:
        champion = registry.champion()
        if champion is not None and not _is_better(model, registry.open(str(champion))):
            return False
        try:
            registry.promote(model.version, why, replacing=champion)
            return True
        except UserError:
            # Another process was faster: its model is the one to compare with.
            if registry.champion() == champion:
                raise


def _is_better(model: ModelVersion, champion: ModelVersion) -> bool:
    new, held = model.description, champion.description
    same_data = held["data"]["digest"] == new["data"]["digest"]
    return not same_data or new["metrics"]["valid_sdr_db"] > held["metrics"]["valid_sdr_db"]


def _quiet_lightning() -> None:
    """Silence what Lightning tells about hardware and data-loader workers: patches need no workers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
