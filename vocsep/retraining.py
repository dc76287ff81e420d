"""Retraining: what changed since the last time, what is done of a job, and whether its model becomes the champion.

A job is one folder with `job.json`, which is replaced atomically after each stage. A process that is killed in any of
them leaves a job that the next one goes on with, as long as the training songs in the store are the same.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from storage.errors import UserError
from storage.files import new_folder, read_json, write_atomically, write_json
from storage.manifest import Manifest, TrackRecord
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from vocsep.config import Settings
from vocsep.dataset import Dataset
from vocsep.evaluation import SongScores
from vocsep.model_description import training_digest
from vocsep.statistics import lower_bound, paired_difference
from vocsep.train_config import TrainConfig

JOB_NAME = "job.json"
REPORT_NAME = "report.md"
LARGEST_LOSS = 0.5
"""Share of the songs that may vanish at once; more look like a disk that is not there."""

Start = Literal["scratch", "champion"]


class Decision(Settings):
    """Whether a challenger becomes the champion, and why.

    Attributes
    ----------
    champion
        The model that it was compared with; None if there was none.
    songs, better
        Test songs that both have a score for, and on how many of them the challenger is better.
    mean_db, least_db
        Mean difference, challenger minus champion, in dB of vocals SDR, and what it is at least with `confidence`.
    """

    challenger: int
    champion: int | None
    promote: bool
    reason: str
    songs: int = 0
    better: int = 0
    mean_db: float | None = None
    least_db: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Changes:
    """Names of songs that are new, changed or removed since the last finished job; test songs included."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        """For people."""
        parts = [(self.new, "new"), (self.changed, "changed"), (self.removed, "removed")]
        return ", ".join(f"{len(names)} {word}" for names, word in parts if names) or "no song changed"


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
        return None if held is None else Decision.model_validate(held)

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
    digest = training_digest(store)
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
    wanted = config.deciding()
    wanted["channels"] = min(config.channels, held["spectrogram"]["channels"])
    wanted.pop("fine_tune")
    return bool(held["data"]["digest"] == digest and wanted.items() <= held["training"].items())


def _intact(registry: ModelRegistry) -> list[ModelVersion]:
    found = []
    for version in registry.versions():
        try:
            found.append(registry.open(str(version)))
        except UserError:
            continue
    return found


def _jobs(jobs: Path) -> list[Job]:
    """All jobs, oldest first; a folder whose process was killed before it wrote anything is none."""
    return [Job(path.parent, read_json(path)) for path in sorted(jobs.glob(f"*/{JOB_NAME}"))]


def song_digests(manifest: Manifest) -> dict[str, str]:
    """Songs of a store and what tells two states of one apart."""

    def digest(track: TrackRecord) -> str:
        return f"{track.split} " + " ".join(f"{array.crc32c:08x}" for _, array in sorted(track.arrays.items()))

    return {track.name: digest(track) for track in manifest.tracks.values()}


def changes_since_last(jobs: Path, songs: dict[str, str]) -> Changes:
    """What is other than when the last job was finished; all songs are new to the first."""
    finished = [job.content for job in _jobs(jobs) if job.content["finished"]]
    held: dict[str, str] = finished[-1]["songs"] if finished else {}
    both = songs.keys() & held.keys()
    return Changes(
        new=tuple(sorted(songs.keys() - held.keys())),
        changed=tuple(sorted(name for name in both if songs[name] != held[name])),
        removed=tuple(sorted(held.keys() - songs.keys())),
    )


def check_loss(manifest: Manifest, dataset: Dataset) -> None:
    """Raise `UserError` if so many songs are gone that it can hardly be meant."""
    held = {track.name for track in manifest.tracks.values()}
    gone = held - {song.name for song in dataset.songs} - dataset.problems.keys()
    if len(gone) > LARGEST_LOSS * len(held):
        raise UserError(
            f"{dataset.root}: {len(gone)} of {len(held)} songs are gone; nothing was changed. If that is meant, drop "
            "them with: make preprocess ARGS=--prune"
        )


def decide(
    challenger: ModelVersion, champion: ModelVersion | None, scores: Sequence[SongScores], confidence: float
) -> Decision:
    """Whether the challenger becomes the champion: if there is none, or if its vocals SDR is surely higher.

    The songs' differences are compared, by `statistics.lower_bound`. Songs that either model was trained or validated
    on do not count.

    Parameters
    ----------
    scores
        Of test songs, with the rows `model` (the challenger) and `champion`.
    """
    assert challenger.version is not None
    if champion is None:
        return Decision(challenger=challenger.version, champion=None, promote=True, reason="there was no champion")
    seen = _songs_of(challenger) | _songs_of(champion)
    counted = [song for song in scores if song.name not in seen]
    pairs = [(song.median("model", "vocals", "SDR"), song.median("champion", "vocals", "SDR")) for song in counted]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    difference = paired_difference([new for new, _ in pairs], [old for _, old in pairs])
    least = lower_bound([new - old for new, old in pairs], confidence)
    left_out = len(scores) - len(counted)
    note = f" ({left_out} test songs do not count: one of the models was trained on them)" if left_out else ""
    if difference is None or least is None:
        return Decision(
            challenger=challenger.version,
            champion=champion.version,
            promote=False,
            reason=f"fewer than two test songs can be compared{note}",
            songs=len(pairs),
        )
    verdict = "better" if least > 0 else "not surely better"
    return Decision(
        challenger=challenger.version,
        champion=champion.version,
        promote=least > 0,
        reason=f"{verdict}: {difference.mean:+.2f} dB vocals SDR on average over {len(pairs)} test songs, better on "
        f"{difference.better}; with {confidence:.0%} confidence at least {least:+.2f} dB{note}",
        songs=len(pairs),
        better=difference.better,
        mean_db=difference.mean,
        least_db=least,
        confidence=confidence,
    )


def _songs_of(model: ModelVersion) -> set[str]:
    data = model.description.get("data", {})
    return {*data.get("train", []), *data.get("valid", [])}


def apply(decision: Decision, registry: ModelRegistry) -> None:
    """Promote the challenger if that was decided; doing it again changes nothing.

    Raises
    ------
    UserError
        If the champion is neither the one it was compared with nor the challenger, or the challenger is damaged.
    """
    if decision.promote and registry.champion() != decision.challenger:
        registry.promote(decision.challenger, f"retrained: {decision.reason}", replacing=decision.champion)


def still_holds(decision: Decision | None, registry: ModelRegistry) -> bool:
    """Whether a decision was made, and about the champion that there is, or that it made."""
    return decision is not None and registry.champion() in (decision.champion, decision.challenger)


def report_text(changes: Changes, job: Job | None, failures: dict[str, str], details: Collection[str]) -> str:
    """The report of a retraining, in markdown.

    Parameters
    ----------
    job
        None if nothing changed.
    failures
        Songs that failed, and why.
    details
        More lines: what was pruned, where the evaluation is.
    """
    lines = ["# Retraining"]
    decision = job.decision if job else None
    if decision is None:
        lines.append("**Nothing to do**: a model was trained on these very songs with these settings already.")
    elif decision.promote:
        lines.append(f"**Model {decision.challenger} is the new champion**: {decision.reason}.")
    else:
        lines.append(
            f"**Model {decision.champion} stays the champion** before {decision.challenger}: {decision.reason}."
        )
    lines.append(f"Songs since the last retraining: {changes}.")
    for word, names in (("New", changes.new), ("Changed", changes.changed), ("Removed", changes.removed)):
        if names:
            lines.append(f"{word}: {', '.join(names)}")
    if job is not None:
        base = job.training.fine_tune
        lines.append(f"Trained from {'scratch' if base is None else f'model {base}'}; job: `{job.folder}`.")
    lines += details
    if failures:
        lines.append("**Failed songs:**\n\n" + "\n".join(f"- {name}: {why}" for name, why in failures.items()))
    return "\n\n".join(lines) + "\n"


def finish(job: Job, songs: dict[str, str], report: str) -> None:
    """Write the report, and close the job: the next one begins with these songs."""
    write_atomically(job.folder / REPORT_NAME, report.encode())
    job.write(finished=True, songs=songs)
