"""Retraining: what changed since the last time, what is done of a job, and whether its model becomes the champion.

A job is one folder with `job.json`, which is replaced atomically after each stage. A process that is killed in any of
them leaves a job that the next one resumes, as long as the training songs in the store are the same.
"""

import contextlib
import logging
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from storage.errors import UserError
from storage.files import new_folder, read_json, value_digest, write_json
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from vocsep.retraining.decision import Decision
from vocsep.training.budget import Budget
from vocsep.training.config import TrainConfig
from vocsep.training.description import training_digest
from vocsep.training.songs import song_pool

JOB_NAME = "job.json"
_SEAL = "sha256"
_FOLDER = re.compile(r"\d{8}-\d{6}(-\d+)?")

Start = Literal["scratch", "champion"]

log = logging.getLogger(__name__)


class Report(BaseModel):
    """The evaluation of a challenger: next to which champion, and in which folder."""

    champion: int | None
    folder: str


class Job(BaseModel):
    """One retraining, as far as it got; all but the folder is in the folder's `job.json`.

    Attributes
    ----------
    digest
        Of the training songs.
    start, settings
        What the challenger's weights begin with, and how it is trained, as JSON-like values.
    finished
        Whether it is closed, with `songs`: those of the store then, and what tells two states of one apart.
    challenger, report, decision
        The new model, its evaluation, and what became of it, once they are known.
    """

    model_config = ConfigDict(validate_assignment=True)

    folder: Path = Field(exclude=True)
    digest: str
    start: Start
    settings: dict[str, Any] = Field(alias="training")
    finished: bool
    challenger: int | None = None
    report: Report | None = None
    decision: Decision | None = None
    songs: dict[str, str] = {}

    @property
    def training(self) -> TrainConfig:
        """How the challenger is trained."""
        return TrainConfig.model_validate(self.settings)

    def write(self) -> None:
        """Write the job to its folder."""
        content = self.model_dump(mode="json", by_alias=True)
        write_json(self.folder / JOB_NAME, content | {_SEAL: value_digest(content)})

    def report_folder(self, reports: Path, champion: int | None) -> Path:
        """Where the evaluation of challenger and champion is written; existing scores count."""
        if self.report is not None and self.report.champion == champion:
            folder = Path(self.report.folder)
            # A report is in the folder of reports, no matter what the job says.
            if folder.is_dir() and folder.resolve().parent == reports.resolve():
                return folder
        folder = new_folder(reports, f"{datetime.now():%Y%m%d-%H%M%S}-retrain-model{self.challenger:04d}")
        self.report = Report(champion=champion, folder=str(folder))
        self.write()
        return folder


def open_job(
    jobs: Path, store: SpectrogramStore, registry: ModelRegistry, config: TrainConfig, start: Start, force: bool
) -> Job | None:
    """The unfinished job of these songs and settings, else a new one, or None if nothing changed.

    Nothing changed if there is a model that `trained_model` finds. Damaged jobs are none.

    Parameters
    ----------
    start
        What the challenger's weights begin with: random ones, or those of the champion, if there is one.
    force
        Begin a new job even if nothing changed.
    """
    digest = training_digest(store, song_pool(config.extra, store))
    wanted = config.model_dump(mode="json", exclude={"fine_tune"})
    for job in reversed(all_jobs(jobs)):
        same = job.digest == digest and job.start == start
        if same and not job.finished and {**job.settings, "fine_tune": None} == {**wanted, "fine_tune": None}:
            if job.challenger is not None and not registry.is_intact(job.challenger):
                log.warning("%s: its model %d is gone or damaged; it is trained again", job.folder, job.challenger)
                job.challenger = job.report = job.decision = None
                job.write()
            return job
    if not force and trained_model(store, registry, config) is not None:
        return None
    champion = registry.champion()
    base = str(champion) if start == "champion" and champion is not None else None
    folder = new_folder(jobs, f"{datetime.now():%Y%m%d-%H%M%S}")
    job = Job(folder=folder, digest=digest, start=start, training=wanted | {"fine_tune": base}, finished=False)
    job.write()
    return job


def trained_model(store: SpectrogramStore, registry: ModelRegistry, config: TrainConfig) -> ModelVersion | None:
    """The newest model of these very training songs and settings whose budget was no smaller."""
    digest = training_digest(store, song_pool(config.extra, store))
    found = (model for model in reversed(_intact(registry)) if _was_trained_so(model, digest, config, store))
    return next(found, None)


def _was_trained_so(model: ModelVersion, digest: str, config: TrainConfig, store: SpectrogramStore) -> bool:
    held = model.description
    try:
        if held["data"]["digest"] != digest:
            return False
        config = config.model_copy(update={"channels": min(config.channels, held["spectrogram"]["channels"])})
        wanted = config.identity()
        wanted.pop("fine_tune")
        return wanted.items() <= held["training"].items() and _was_trained_enough(held["training"], config, store)
    except (KeyError, TypeError, ValueError, AttributeError):  # a model from elsewhere, which says other things
        return False


def _was_trained_enough(held: dict[str, Any], config: TrainConfig, store: SpectrogramStore) -> bool:
    """Whether a training was allowed as much as a budget allows, or has done as much."""
    names = ("steps", "epochs", "max_minutes")
    wanted = Budget.of(config, store)
    allowed = Budget.of(config.model_copy(update={name: held.get(name) for name in names}), store)
    both = ((wanted.steps, allowed.steps), (wanted.seconds, allowed.seconds))
    if all(limit is None or (most is not None and most <= limit) for most, limit in both):
        return True
    done = ((wanted.steps, held.get("steps_done", 0)), (wanted.seconds, held.get("seconds", 0.0)))
    return any(most is not None and most <= much for most, much in done)


def _intact(registry: ModelRegistry) -> list[ModelVersion]:
    found = []
    for version in registry.versions():
        with contextlib.suppress(UserError):
            found.append(registry.open(str(version)))
    return found


def is_job(folder: Path) -> bool:
    """Whether a folder has the name of a job's."""
    return _FOLDER.fullmatch(folder.name) is not None


def all_jobs(jobs: Path) -> list[Job]:
    """All jobs, oldest first; a folder whose process was killed before it wrote anything is none.

    One that is damaged is set aside: what was retrained is in the registry, and the next job does what is missing.
    """
    found = []
    for path in sorted(path for path in jobs.glob(f"*/{JOB_NAME}") if is_job(path.parent)):
        try:
            content = read_json(path)
            # Files of earlier versions hold no digest of themselves.
            if isinstance(content, dict) and content.pop(_SEAL, None) not in (None, value_digest(content)):
                raise ValueError("edited since it was written")
            found.append(Job.model_validate({**content, "folder": path.parent}))
        except (OSError, TypeError, ValueError, RecursionError):
            aside = path.replace(path.with_name(f"{JOB_NAME}.damaged"))
            log.warning("%s: damaged; set aside as %s, and its retraining is not resumed", path, aside.name)
    return found
