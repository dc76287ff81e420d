"""Training a network from the patches of a store, with whole-song validation in dB, into the model registry."""

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from storage.errors import UserError
from storage.files import telling_full_disk
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from vocsep.cores import limit_torch_threads
from vocsep.memory import give_back_memory
from vocsep.models.precision import pick_precision
from vocsep.models.torch_network import pick_device
from vocsep.patches.pool import SongPool
from vocsep.patches.tiers import open_tier
from vocsep.preprocessing.config import spectrogram_config
from vocsep.progress import Progress
from vocsep.training.batches import StepBatches, patch_sampler
from vocsep.training.budget import Budget
from vocsep.training.checks import check_bins, check_bytes, check_memory, check_songs, check_sound
from vocsep.training.config import TrainConfig
from vocsep.training.description import describe_model, training_digest
from vocsep.training.group import join_group, leave_group
from vocsep.training.initial_network import initial_network
from vocsep.training.loop import run_training
from vocsep.training.processes import place
from vocsep.training.promotion import model_of_run, promote_if_better
from vocsep.training.run_folder import RunFolder, open_run
from vocsep.training.songs import song_pool
from vocsep.training.state import Course

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
    progress: Progress | None = None,
    promote: bool = True,
) -> TrainResult | None:
    """Train a model and add the weights that scored best on the validation songs, on average, to the registry.

    The new model becomes the champion if there is none, or if it scores better on the store's validation songs (see
    `promote_if_better`); without `promote` the champion stays what it is.

    Under torchrun or SLURM every process calls this, and shares the batches; one of them writes all files.

    Parameters
    ----------
    runs
        Folder of the folders of runs: `run.json`, `metrics.csv`, TensorBoard log, checkpoints.
    resume
        `auto` resumes the newest unfinished run of the same settings and songs, if there is one; `never` begins
        anew; or the folder of a run.
    progress
        Called after every step with the used share of the budget, and 1.

    Returns
    -------
    result
        None in all but the first of several processes.

    Raises
    ------
    UserError
        If the songs, the settings and the machine do not go together, loss or gradients are not finite, or the disk is
        full.
    TrainingStopped
        If the process was told to end; the run is saved and can resume.
    """
    with telling_full_disk(runs, "what was saved stays; make room, then resume with the same command"):
        return _fit(config, store, registry, runs, resume, progress, promote)


def _fit(
    config: TrainConfig,
    store: SpectrogramStore,
    registry: ModelRegistry,
    runs: Path,
    resume: str,
    progress: Progress | None,
    promote: bool,
) -> TrainResult | None:
    config = config.model_copy(update={"channels": min(config.channels, spectrogram_config(store).channels)})
    pool = song_pool(config.extra, store)
    check_songs(store, config, pool)
    check_bins(store, config)
    check_bytes(store, pool, _sources(config))
    sampler = patch_sampler(config, pool)
    check_sound(store)
    here = place()
    if config.batch_size % here.count:
        raise UserError(f"batch_size {config.batch_size} cannot be shared by {here.count} processes; take a multiple")
    limit_torch_threads()
    device = pick_device(config.device)
    check_memory(config, store, device, here.count)
    torch.manual_seed(config.seed)
    network = initial_network(config, store, registry, pool, sampler)
    run = open_run(runs, resume, config.identity(), training_digest(store, pool)) if here.rank == 0 else None
    try:
        group = join_group(device, pick_precision(device.type, config.precision))
        tier, tier_text = open_tier(pool, _sources(config), config.channels, group.device, config.data)
        batches = StepBatches(tier, sampler, config, group.rank, group.size)
        if run is not None:
            log.info(
                "training on %d songs (%d for validation) for %s, on %s, %s; %s; run: %s",
                len(pool.tracks),
                len(store.tracks("valid")),
                Budget.of(config, store),
                f"{group.size} x {device.type}" if group.size > 1 else device.type,
                group.precision,
                tier_text,
                run.path,
            )
            if run.checkpoint is not None:
                log.info("resuming after step %d of %s", run.checkpoint.step, run.path)
        course = run_training(group, network, store, config, batches, run, progress)
        return _register(config, store, pool, registry, run, course, device, promote) if run is not None else None
    except BaseException as error:
        # What failed still holds the network that processes share, and with it their group's threads.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        if run is not None:
            run.close()
        leave_group()
        # The workers of what follows in this process, such as an evaluation, find it free.
        give_back_memory()


def _register(
    config: TrainConfig,
    store: SpectrogramStore,
    pool: SongPool,
    registry: ModelRegistry,
    run: RunFolder,
    course: Course,
    device: torch.device,
    promote: bool,
) -> TrainResult:
    origin = {"folder": str(run.path), "created": run.description["created"]}
    share = round(course.validation_share, 4)
    seconds = round(course.seconds, 1)
    summary = {"steps_done": course.step, "seconds": seconds, "validation_share": share, "device": device.type}
    description = describe_model(config, store, pool) | {
        "metrics": {"valid_sdr_db": course.best_sdr_db, "valid_floor_sdr_db": course.floor_sdr_db},
        "training": config.model_dump(mode="json") | summary | {"run": origin},
        "history": course.history,
    }
    # One that was killed right after it had added its model does not add it again.
    model = model_of_run(registry, origin, course.step) or registry.add(course.best_weights, description)
    assert model.version is not None
    is_champion = promote_if_better(registry, model, store) if promote else registry.champion() == model.version
    run.write("finished", **description | {"model_version": model.version, "created": origin["created"]})
    return TrainResult(
        version=model.version,
        model_path=str(model.path),
        run_folder=str(run.path),
        steps=course.step,
        seconds=seconds,
        valid_sdr_db=course.best_sdr_db,
        floor_sdr_db=course.floor_sdr_db,
        validation_share=share,
        is_champion=is_champion,
    )


def _sources(config: TrainConfig) -> tuple[str, ...]:
    """The spectrograms that training reads."""
    sources = ["vocals"]
    if config.augmentation.remix > 0 or config.compares_accompaniment:
        sources.append("accompaniment")
    if config.augmentation.remix < 1:
        sources.append("mixture")
    return tuple(sources)
