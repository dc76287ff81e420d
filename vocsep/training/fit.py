"""Training a U-Net from the patches of a store, with whole-song validation in dB, into the model registry."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader

from storage.errors import UserError
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from vocsep.models.torch_network import pick_device
from vocsep.patches.tiers import open_tier
from vocsep.preprocessing.config import spectrogram_config
from vocsep.training.batches import StepBatches, patch_sampler
from vocsep.training.budget import Budget
from vocsep.training.checks import check_bins, check_memory, check_songs, check_sound
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_model, training_digest
from vocsep.training.initial_network import initial_network
from vocsep.training.loop import TrainingRun
from vocsep.training.module import TrainingModule, pick_precision
from vocsep.training.processes import leave_group
from vocsep.training.processes import processes as processes_here
from vocsep.training.promotion import _model_of_run, _promote_if_better
from vocsep.training.run_folder import RunFolder, open_run

ProgressHook = Callable[[float], None]


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


def _quiet_lightning() -> None:
    """Silence what Lightning tells about hardware and data-loader workers: patches need no workers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
