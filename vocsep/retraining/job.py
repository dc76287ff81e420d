"""Retraining: what changed since the last time, what is done of a job, and whether its model becomes the champion.

A job is one folder with `job.json`, which is replaced atomically after each stage. A process that is killed in any of
them leaves a job that the next one goes on with, as long as the training songs in the store are the same.
"""

import contextlib
import logging
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from storage.errors import UserError
from storage.files import new_folder, read_json, write_json
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from vocsep.retraining.decision import Decision
from vocsep.training.config import TrainConfig
from vocsep.training.description import training_digest
from vocsep.training.songs import song_pool

JOB_NAME = "job.json"
FIELDS = {"digest", "start", "training", "finished"}
"""Of every job."""

Start = Literal["scratch", "champion"]

log = logging.getLogger(__name__)


class Job:
    """One retraining, as far as it got.

    Attributes
    ----------
    content
        `digest` of the training songs, `training` (its settings), and, once they are known, `challenger`, `report` and
        `decision`; `finished` at the end, with `songs`.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.content = content

    @property
    def training(self) -> TrainConfig:
        """How the challenger is trained."""
        return TrainConfig.model_validate(self.content["training"])

    @property
    def challenger(self) -> int | None:
        """The new model, once it is trained."""
        number: int | None = self.content.get("challenger")
        return number

    @property
    def decision(self) -> Decision | None:
        """What became of the challenger, once that is known."""
        held = self.content.get("decision")
        return None if held is None else Decision(**held)

    def write(self, **more: Any) -> None:
        """Add to the job, on disk as well."""
        self.content = self.content | more
        write_json(self.folder / JOB_NAME, self.content)

    def report_folder(self, reports: Path, champion: int | None) -> Path:
        """Where the challenger's evaluation beside a champion is written; what is there already counts."""
        held = self.content.get("report", {})
        if held.get("champion", 0) == champion and Path(held["folder"]).is_dir():
            return Path(held["folder"])
        folder = new_folder(reports, f"{datetime.now():%Y%m%d-%H%M%S}-retrain-model{self.challenger:04d}")
        self.write(report={"champion": champion, "folder": str(folder)})
        return folder


def open_job(
    jobs: Path, store: SpectrogramStore, registry: ModelRegistry, config: TrainConfig, start: Start, force: bool
) -> Job | None:
    """The unfinished job of these songs and settings, else a new one, or None if nothing changed.

    Nothing changed if some model was trained on the very same songs with the same settings, budget aside.

    Parameters
    ----------
    start
        What the challenger's weights begin with: random ones, or those of the champion, if there is one.
    force
        Begin a new job even if nothing changed.
    """
    digest = training_digest(store, song_pool(config.extra, store))
    wanted = config.model_dump(mode="json", exclude={"fine_tune"})
    for job in reversed(_jobs(jobs)):
        held = job.content
        same = held["digest"] == digest and held["start"] == start
        if same and not held["finished"] and {**held["training"], "fine_tune": None} == {**wanted, "fine_tune": None}:
            return job
    if not force and any(_was_trained_so(model, digest, config) for model in _intact(registry)):
        return None
    champion = registry.champion()
    base = str(champion) if start == "champion" and champion is not None else None
    job = Job(
        new_folder(jobs, f"{datetime.now():%Y%m%d-%H%M%S}"),
        {"digest": digest, "start": start, "training": wanted | {"fine_tune": base}, "finished": False},
    )
    job.write()
    return job


def _was_trained_so(model: ModelVersion, digest: str, config: TrainConfig) -> bool:
    held = model.description
    wanted = config.identity()
    wanted["channels"] = min(config.channels, held["spectrogram"]["channels"])
    wanted.pop("fine_tune")
    return bool(held["data"]["digest"] == digest and wanted.items() <= held["training"].items())


def _intact(registry: ModelRegistry) -> list[ModelVersion]:
    found = []
    for version in registry.versions():
        with contextlib.suppress(UserError):
            found.append(registry.open(str(version)))
    return found


def _jobs(jobs: Path) -> list[Job]:
    """All jobs, oldest first; a folder whose process was killed before it wrote anything is none, nor is damage."""
    found = []
    for path in sorted(jobs.glob(f"*/{JOB_NAME}")):
        try:
            content = read_json(path)
        except (OSError, ValueError):
            content = None
        if isinstance(content, dict) and content.keys() >= FIELDS and isinstance(content["training"], dict):
            found.append(Job(path.parent, content))
        else:
            log.warning("%s: damaged; what it was about is begun anew", path)
    return found
