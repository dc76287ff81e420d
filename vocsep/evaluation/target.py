"""What is evaluated: subjects, dataset and songs, found by their names."""

from dataclasses import dataclass

from storage.errors import UserError
from storage.manifest import Manifest
from storage.registry import ModelVersion
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset, Song, song_key
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.subjects import FolderSubject, ModelSubject, Subject
from vocsep.models.registry import BUNDLED, open_registry
from vocsep.preprocessing.location import dataset_root, on_disk


@dataclass(frozen=True)
class Target:
    """What is evaluated: subjects, by their rows, on the songs of one split; and the models of rows that have one."""

    subjects: dict[str, Subject]
    models: dict[str, ModelVersion]
    dataset: Dataset
    split: str
    songs: tuple[Song, ...]

    @property
    def titles(self) -> dict[str, str]:
        """Row to what people call its subject."""
        return {
            row: str(subject.folder) if isinstance(subject, FolderSubject) else _title(self.models[row])
            for row, subject in self.subjects.items()
        }

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
        names = [] if model is None else [*model.songs("train"), *model.songs("valid")]
        seen = {song_key(name) for name in names}
        return sorted(song.name for song in self.songs if song_key(song.name) in seen)


def _title(model: ModelVersion) -> str:
    return "the bundled model" if model.path == BUNDLED else f"model {model.path}"


def resolve(config: EvaluateConfig) -> Target:
    """Find subjects, dataset and songs by their names.

    Raises `UserError` if one of them is missing or the split has no songs.
    """
    registry = open_registry(config.models)
    versions: dict[str, ModelVersion] = {}
    subjects: dict[str, Subject] = {}
    if config.estimates is None:
        versions["model"] = registry.open(config.model)
    elif config.estimates.is_dir():
        subjects["model"] = FolderSubject(config.estimates.resolve())
    else:
        raise UserError(f"{config.estimates}: no such folder of estimates")
    if config.against is not None:
        versions["against"] = registry.open(config.against)
    elif (number := registry.champion()) is not None:
        champion = registry.open(str(number))
        if "model" not in versions or versions["model"].path.resolve() != champion.path.resolve():
            versions["champion"] = champion
    if BUNDLED.is_dir() and all(version.path.resolve() != BUNDLED for version in versions.values()):
        versions["bundled"] = registry.open("bundled")
    for row, version in versions.items():
        name = str(version.path.resolve()) if version.version is None else str(version.version)
        subjects[row] = ModelSubject(config.models.resolve(), name)
    if config.dataset is not None:
        opened = open_dataset(config.dataset, config.kind)
    else:
        held = Manifest.load(on_disk(config.store, ()))
        opened = open_dataset(dataset_root(held, config.store), held.kind)
    songs = tuple(opened.split(config.split))
    if not songs:
        raise UserError(f"{opened.root}: no songs in the {config.split} split; evaluate another one with --split")
    return Target(
        dict(sorted(subjects.items(), key=lambda item: item[0] != "model")), versions, opened, config.split, songs
    )
