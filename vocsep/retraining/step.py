"""The step `retrain`: take in what changed, train a challenger, and let it take the champion's place if it is better.

Every stage leaves what it did on disk (see `vocsep.retraining.job`). A run that is killed and started again resumes in
the stage that it was in, and does nothing twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import Field

from storage.errors import UserError
from storage.lock import require_free, store_lock
from storage.registry import KEEP, ModelRegistry
from storage.store import SpectrogramStore
from vocsep.config import Settings
from vocsep.datasets.layouts import DEMO_KIND, open_dataset
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.score_files import read_scores
from vocsep.evaluation.step import EvaluateResult, evaluate
from vocsep.mapping import Map, SomeFailed, serial
from vocsep.models.registry import open_registry
from vocsep.paths import JOBS, MODELS, REPORTS, RUNS
from vocsep.preprocessing import step as preprocessing_step
from vocsep.preprocessing.location import dataset_root, held_manifest, on_disk
from vocsep.preprocessing.plan import is_same_dataset
from vocsep.preprocessing.step import PreprocessConfig, PreprocessResult, preprocess
from vocsep.progress import Progress
from vocsep.retraining.changes import changes_since_last, check_loss, song_digests
from vocsep.retraining.decision import Decision, apply, decide, still_holds
from vocsep.retraining.job import Job, Start, open_job, trained_model
from vocsep.retraining.pruning import prune_jobs, prune_reports, prune_runs
from vocsep.retraining.report import finish, nothing_to_do_markdown, retraining_markdown
from vocsep.training.config import TrainConfig
from vocsep.training.fit import TrainResult
from vocsep.training.run_folder import finished_version
from vocsep.training.step import TrainJob, train


class RetrainSongs(PreprocessConfig):
    """Songs to take in; without a dataset, those that the store was made from, or the demo songs without a store."""

    prune: bool = Field(default=True, description="Drop songs that are no longer in the dataset (by default).")


class RetrainConfig(Settings):
    """Which songs, how the challenger is trained, and when it becomes the champion."""

    preprocessing: RetrainSongs = RetrainSongs()
    training: TrainConfig = TrainConfig()
    start: Start = Field(default="scratch", description="scratch, or champion to fine-tune it.")
    force: bool = Field(default=False, description="Train even if nothing changed.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence needed to call the new model better.")
    split: str = Field(default="test", description="Songs on which both models are scored.")
    keep: int = Field(default=KEEP, ge=2, description="Number of models, reports and checkpointed runs to keep.")
    models: Path = Field(default=MODELS, description="Model registry.")
    runs: Path = Field(default=RUNS, description="Folder for runs: curves, checkpoints.")
    reports: Path = Field(default=REPORTS, description="Folder for reports.")
    jobs: Path = Field(default=JOBS, description="Folder for the state of retrainings.")


@dataclass(frozen=True)
class RetrainResult:
    """What came of it; without a decision there was nothing to do."""

    decision: Decision | None
    report: str

    def lines(self) -> list[str]:
        """For people."""
        return ["", *self.report.splitlines()]


@dataclass(frozen=True)
class Steps:
    """What a retraining consists of; to run it elsewhere (as Prefect tasks), pass other functions."""

    preprocess: Callable[[PreprocessConfig], PreprocessResult]
    train: Callable[[TrainJob], TrainResult | None]
    evaluate: Callable[[EvaluateConfig, Path], EvaluateResult]


def check(config: RetrainConfig) -> None:
    """Raise `UserError` if the settings are wrong, as far as can be known before anything starts."""
    require_free(config.jobs)
    if config.training.fine_tune is not None:
        raise UserError("training.fine_tune: cannot be set here; start=champion fine-tunes the champion")
    registry = open_registry(config.models)
    if (champion := registry.champion()) is not None:
        registry.open(str(champion)).verify()
    preparation = _preparation(config)
    preprocessing_step.check(preparation)
    if preparation.dataset is None:
        return
    dataset = open_dataset(preparation.dataset, preparation.kind)
    manifest = held_manifest(preparation.store)
    if manifest is not None and is_same_dataset(manifest, dataset):
        check_loss(manifest, dataset)
    if not dataset.split(config.split):
        raise UserError(f"{dataset.root}: no songs in the {config.split} split, on which models are compared")


def retrain(
    config: RetrainConfig, *, progress: Progress | None = None, map: Map = serial, steps: Steps | None = None
) -> RetrainResult:
    """Add new and changed songs, drop removed ones, train a challenger, promote it if it beats the champion.

    Parameters
    ----------
    progress, map
        Of each step, unless `steps` names other ones.

    Raises
    ------
    UserError
        If songs, settings or the champion are wrong, or another retraining is running.
    SomeFailed
        If some songs failed; all else is done.
    TrainingStopped
        If the process was told to end; the same call resumes there.

    Examples
    --------
    >>> retrain(RetrainConfig(confidence=0.99)).decision  # doctest: +SKIP
    """
    check(config)
    steps = steps or Steps(
        preprocess=partial(preprocess, progress=progress, map=map),
        train=partial(train, progress=progress, promote=False),
        evaluate=lambda wanted, folder: evaluate(wanted, progress=progress, map=map, folder=folder),
    )
    failures: dict[str, str] = {}
    left_out: dict[str, str] = {}
    with store_lock(config.jobs):
        try:
            left_out = steps.preprocess(_preparation(config)).failed
        except SomeFailed as some:
            failures = some.failures
        store = SpectrogramStore.open(on_disk(config.preprocessing.store, ("train", "valid")))
        manifest = held_manifest(config.preprocessing.store)
        assert manifest is not None
        songs = song_digests(manifest)
        registry = open_registry(config.models)
        changes = changes_since_last(config.jobs, songs)
        job = open_job(config.jobs, store, registry, config.training, config.start, config.force)
        if job is None:
            model = trained_model(store, registry, config.training)
            assert model is not None
            text = nothing_to_do_markdown(model, left_out | failures)
        else:
            _train_challenger(config, job, steps)
            failures |= _decide(config, job, registry, steps)
            assert job.decision is not None
            assert job.report is not None
            apply(job.decision, registry)
            details = [f"Evaluation: `{job.report.folder}`", *_tidy_up(config)]
            text = retraining_markdown(changes, job, left_out | failures, details)
            finish(job, songs, text)
    result = RetrainResult(decision=job.decision if job is not None else None, report=text)
    if failures:
        raise SomeFailed(failures, len(songs) + len(failures), "songs", result)
    return result


def _preparation(config: RetrainConfig) -> PreprocessConfig:
    """Settings of preprocessing; without a dataset, that of the store."""
    songs = config.preprocessing
    manifest = held_manifest(songs.store)
    if songs.dataset is None and manifest is not None and manifest.kind != DEMO_KIND:
        return songs.model_copy(update={"dataset": dataset_root(manifest, songs.store), "kind": manifest.kind})
    return songs


def _train_challenger(config: RetrainConfig, job: Job, steps: Steps) -> None:
    """Train, unless that is done; a killed run resumes at its last checkpoint."""
    if job.challenger is not None:
        return
    # The job's own folder: no other run is mistaken for that of this job.
    runs = config.runs / f"retrain-{job.folder.name}"
    version = finished_version(runs, open_registry(config.models))
    if version is None:
        wanted = TrainJob(training=job.training, store=config.preprocessing.store, models=config.models, runs=runs)
        result = steps.train(wanted)
        assert result is not None
        version = result.version
    job.challenger = version
    job.write()


def _decide(config: RetrainConfig, job: Job, registry: ModelRegistry, steps: Steps) -> dict[str, str]:
    """Score challenger and champion on the same songs, and decide, unless that is done; returns songs that failed."""
    if still_holds(job.decision, registry):
        return {}
    champion = registry.champion()
    folder = job.report_folder(config.reports, champion)
    evaluation = EvaluateConfig(
        model=str(job.challenger),
        split=config.split,
        store=config.preprocessing.store,
        models=config.models,
        reports=config.reports,
        workers=config.preprocessing.workers,
    )
    failures = {}
    try:
        steps.evaluate(evaluation, folder)
    except SomeFailed as some:
        failures = some.failures
    held = registry.in_use()
    scores = list(read_scores(folder).values())
    job.decision = decide(registry.open(str(job.challenger)), held, scores, config.confidence)
    job.write()
    return failures


def _tidy_up(config: RetrainConfig) -> list[str]:
    """Delete old models, reports and checkpoints; returns what was done, for people."""
    models = open_registry(config.models).prune(config.keep)
    reports = prune_reports(config.reports, config.keep)
    runs = prune_runs(config.runs, config.keep)
    prune_jobs(config.jobs, config.keep)
    counts = {"models": len(models), "reports": len(reports), "runs' checkpoints": len(runs)}
    deleted = [f"{count} old {what}" for what, count in counts.items() if count]
    return [f"Deleted: {', '.join(deleted)}."] if deleted else []
