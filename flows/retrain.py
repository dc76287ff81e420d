"""Flow `retrain`: take in what changed, train a challenger, and let it take the champion's place if it is better.

Every stage leaves what it did on disk (see `vocsep.retraining`). A run that is killed and started again goes on in the
stage that it was in, and does nothing twice.
"""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.evaluate import EvaluateConfig, score_songs
from flows.preprocess import PreprocessConfig, make_demo_dataset, preprocess_songs
from flows.preprocess import check as check_preprocess
from flows.reporting import SomeFailed, failing_in_one_line, result_of, say_what_to_do
from flows.train import fit_model
from storage.errors import UserError
from storage.lock import require_free, store_lock
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from vocsep.config import Settings
from vocsep.datasets.layouts import DEMO_KIND, open_dataset
from vocsep.evaluation.score_files import read_scores
from vocsep.paths import DEMO, JOBS, MODELS, REPORTS, RUNS
from vocsep.preprocessing.location import held_manifest, on_disk
from vocsep.preprocessing.plan import is_same_dataset
from vocsep.retraining.changes import changes_since_last, check_loss, song_digests
from vocsep.retraining.decision import Decision, apply, decide, still_holds
from vocsep.retraining.job import Job, Start, open_job
from vocsep.retraining.pruning import prune_jobs, prune_reports, prune_runs
from vocsep.retraining.report import finish, report_text
from vocsep.training.config import TrainConfig
from vocsep.training.run_folder import finished_version
from vocsep.training.step import TrainJob


class RetrainConfig(PreprocessConfig):
    """Parameters of the flow: those of preprocessing, and the following.

    Without a dataset, the songs are those that the store was made from, or the demo songs where there is none. Songs
    that are removed from the dataset leave the store (`prune`).

    Attributes
    ----------
    training
        How the challenger is trained; its budget decides how long a retraining takes.
    start
        `scratch`, or `champion` to fine-tune it.
    force
        Train even if nothing changed.
    confidence
        How sure it must be that the challenger is better.
    split
        Songs on which both are scored.
    keep
        How many of the newest models, reports, and runs with checkpoints stay; the champion and the one before it
        always do.
    """

    prune: bool = True
    training: TrainConfig = TrainConfig()
    start: Start = "scratch"
    force: bool = False
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    split: str = "test"
    keep: int = Field(default=10, ge=2)
    models: Path = MODELS
    runs: Path = RUNS
    reports: Path = REPORTS
    jobs: Path = JOBS


class RetrainResult(Settings):
    """What came of it; without a decision nothing had changed."""

    decision: Decision | None
    report: str


def check(config: RetrainConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    require_free(config.jobs)
    if config.training.fine_tune is not None:
        raise UserError("training.fine_tune: cannot be set here; start=champion fine-tunes the champion")
    registry = ModelRegistry(config.models)
    if (champion := registry.champion()) is not None:
        registry.open(str(champion)).verify()
    preparation = _preparation(config)
    check_preprocess(preparation)
    if preparation.dataset is None:
        return
    dataset = open_dataset(preparation.dataset, preparation.kind)
    manifest = held_manifest(config.store)
    if manifest is not None and is_same_dataset(manifest, dataset):
        check_loss(manifest, dataset)
    if not dataset.split(config.split):
        raise UserError(f"{dataset.root}: no songs in the {config.split} split, on which models are compared")


def _preparation(config: RetrainConfig) -> PreprocessConfig:
    """Parameters of preprocessing; without a dataset, that of the store."""
    values = config.model_dump(include=set(PreprocessConfig.model_fields))
    manifest = held_manifest(config.store)
    if config.dataset is None and manifest is not None and manifest.dataset["kind"] != DEMO_KIND:
        values |= {"dataset": Path(manifest.dataset["root"]), "kind": manifest.dataset["kind"]}
    return PreprocessConfig.model_validate(values)


def _take_in_songs(config: RetrainConfig) -> dict[str, str]:
    """Bring the store up to date; returns the songs that failed, and why."""
    preparation = _preparation(config)
    root = preparation.dataset if preparation.dataset is not None else result_of(make_demo_dataset, DEMO)
    try:
        result_of(preprocess_songs, root, preparation)
    except SomeFailed as some:
        return some.failures
    return {}


def _train_challenger(config: RetrainConfig, job: Job) -> None:
    """Train, unless that is done; a run that was killed goes on at its last checkpoint."""
    if job.challenger is not None:
        return
    # The job's own folder: no other run is mistaken for that of this job.
    runs = config.runs / f"retrain-{job.folder.name}"
    version = finished_version(runs)
    if version is None:
        training = TrainJob(training=job.training, store=config.store, models=config.models, runs=runs)
        version = result_of(fit_model, training, promote=False).version
    job.write(challenger=version)


def _decide(config: RetrainConfig, job: Job, registry: ModelRegistry) -> dict[str, str]:
    """Score challenger and champion on the same songs, and decide, unless that is done; returns songs that failed."""
    if still_holds(job.decision, registry):
        return {}
    champion = registry.champion()
    folder = job.report_folder(config.reports, champion)
    evaluation = EvaluateConfig(
        model=str(job.challenger),
        split=config.split,
        store=config.store,
        models=config.models,
        reports=config.reports,
        workers=config.workers,
    )
    failures = {}
    try:
        result_of(score_songs, evaluation, folder)
    except SomeFailed as some:
        failures = some.failures
    held = None if champion is None else registry.open(str(champion))
    scores = list(read_scores(folder).values())
    decision = decide(registry.open(str(job.challenger)), held, scores, config.confidence)
    job.write(decision=decision.model_dump(mode="json"))
    return failures


@task(name="tidy up", cache_policy=NO_CACHE)
@failing_in_one_line
def tidy_up(config: RetrainConfig) -> list[str]:
    """Delete old models, reports and checkpoints; returns what was done, for people."""
    models = ModelRegistry(config.models).prune(config.keep)
    reports = prune_reports(config.reports, config.keep)
    runs = prune_runs(config.runs, config.keep)
    prune_jobs(config.jobs, config.keep)
    counts = {"models": len(models), "reports": len(reports), "runs' checkpoints": len(runs)}
    deleted = [f"{count} old {what}" for what, count in counts.items() if count]
    return [f"Deleted: {', '.join(deleted)}."] if deleted else []


@flow(name="retrain", on_failure=[say_what_to_do], on_crashed=[say_what_to_do])
@failing_in_one_line
def retrain(config: RetrainConfig = RetrainConfig()) -> RetrainResult:  # noqa: B008 (Prefect reads it)
    """Take in new, changed and removed songs, train a challenger, and promote it if it is better than the champion."""
    check(config)
    with store_lock(config.jobs):
        failures = _take_in_songs(config)
        store = SpectrogramStore.open(on_disk(config.store, ("train", "valid")))
        manifest = held_manifest(config.store)
        assert manifest is not None
        songs = song_digests(manifest)
        changes = changes_since_last(config.jobs, songs)
        registry = ModelRegistry(config.models)
        job = open_job(config.jobs, store, registry, config.training, config.start, config.force)
        details = []
        if job is not None:
            _train_challenger(config, job)
            failures |= _decide(config, job, registry)
            assert job.decision is not None
            apply(job.decision, registry)
            details = [f"Evaluation: `{job.content['report']['folder']}`", *result_of(tidy_up, config)]
        text = report_text(changes, job, failures, details)
        create_markdown_artifact(text, key="retrain-report", description="What was decided, and why")
        if job is not None:
            finish(job, songs, text)
    if failures:
        raise SomeFailed(failures, len(songs) + len(failures), "songs")
    return RetrainResult(decision=job.decision if job is not None else None, report=text)
