"""What is evaluated: subjects, dataset and songs, found by their names."""

from dataclasses import dataclass
from pathlib import Path

from storage.errors import UserError
from storage.manifest import Manifest
from storage.registry import ModelRegistry, ModelVersion
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset, Song
from vocsep.evaluation.subjects import FolderSubject, ModelSubject, Subject


@dataclass(frozen=True)
class Target:
    """What is evaluated: subjects, by their rows, on the songs of one split.

    Attributes
    ----------
    models
        The model version of every row that has one.
    """

    subjects: dict[str, Subject]
    models: dict[str, ModelVersion]
    dataset: Dataset
    split: str
    songs: tuple[Song, ...]

    @property
    def titles(self) -> dict[str, str]:
        """Row to what people call its subject."""
        return {
            row: str(subject.folder) if isinstance(subject, FolderSubject) else f"model {self.models[row].path}"
            for row, subject in self.subjects.items()
        }

    @property
    def title(self) -> str:
        """What people call the subject of the evaluation."""
        return self.titles["model"]

    @property
    def label(self) -> str:
        """A short name for folders."""
        model = self.models.get("model")
        if model is None:
            return "estimates"
        return f"model{model.version:04d}" if model.version is not None else "model"

    @property
    def seen_in_training(self) -> list[str]:
        """Names of songs that the model was trained or validated on: their scores say little."""
        model = self.models.get("model")
        data = model.description.get("data", {}) if model is not None else {}
        seen = {*data.get("train", []), *data.get("valid", [])}
        return sorted(song.name for song in self.songs if song.name in seen)


def resolve_evaluation(
    models: Path,
    model: str,
    dataset: Path | None,
    kind: str,
    split: str,
    store: Path,
    *,
    estimates: Path | None = None,
    against: str | None = None,
) -> Target:
    """Find subjects, dataset and songs by their names.

    Parameters
    ----------
    model
        What the row `model` is, unless `estimates` names a folder.
    dataset, kind
        See `open_dataset`; None takes the dataset that `store` was made from.
    against
        A second model, the row `against`; None takes the champion, if there is one and it is another model.

    Raises
    ------
    UserError
        If one of them is missing or the split has no songs.
    """
    registry = ModelRegistry(models)
    versions: dict[str, ModelVersion] = {}
    subjects: dict[str, Subject] = {}
    if estimates is None:
        versions["model"] = registry.open(model)
    elif estimates.is_dir():
        subjects["model"] = FolderSubject(estimates.resolve())
    else:
        raise UserError(f"{estimates}: no such folder of estimates")
    if against is not None:
        versions["against"] = registry.open(against)
    elif (number := registry.champion()) is not None:
        champion = registry.open(str(number))
        if "model" not in versions or versions["model"].path.resolve() != champion.path.resolve():
            versions["champion"] = champion
    for row, version in versions.items():
        name = str(version.path.resolve()) if version.version is None else str(version.version)
        subjects[row] = ModelSubject(models.resolve(), name)
    if dataset is not None:
        opened = open_dataset(dataset, kind)
    else:
        held = Manifest.load(store).dataset
        opened = open_dataset(Path(held["root"]), held["kind"])
    songs = tuple(opened.split(split))
    if not songs:
        raise UserError(f"{opened.root}: no songs in the {split} split; evaluate another one with --split")
    return Target(dict(sorted(subjects.items(), key=lambda item: item[0] != "model")), versions, opened, split, songs)
