"""What a model file says of itself: architecture, settings, songs, versions."""

import functools
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from storage import calling
from storage.files import file_digest, value_digest
from storage.store import SpectrogramStore
from vocsep.models.architecture import TfcTdfArchitecture, UNetArchitecture, parse_architecture
from vocsep.patches.pool import SongPool
from vocsep.preprocessing.config import spectrogram_config
from vocsep.training.config import TrainConfig


def describe_architecture(config: TrainConfig, store: SpectrogramStore) -> UNetArchitecture | TfcTdfArchitecture:
    """The network that settings mean for the songs of a store."""
    objective, spectrogram = config.objective, spectrogram_config(store)
    drops_dc = objective.bins == "even" and spectrogram.dropped_bin == "none"
    bins = spectrogram.bins - drops_dc
    architecture = {
        "name": config.network,
        "channels": config.channels,
        "targets": len(config.targets),
        "scaled_bins": bins if objective.input == "root" else None,
        "input": objective.input,
        "output": objective.output,
        "drops_dc": drops_dc,
    }
    if config.network == "tfc-tdf":
        architecture["bins"] = bins
    if config.width is not None:
        architecture["width"] = config.width
    return parse_architecture(architecture)


def training_digest(store: SpectrogramStore, pool: SongPool | None = None) -> str:
    """Digest of the settings and of every stored byte that training reads; test songs do not change it.

    Parameters
    ----------
    pool
        The songs that patches are drawn from, where they are not those of the store alone.
    """

    def content(one: SpectrogramStore, splits: tuple[str, ...]) -> dict[str, Any]:
        arrays = {
            track.id: {name: array.crc32c for name, array in track.arrays.items()}
            for split in splits
            for track in one.tracks(split)
        }
        return {"config": one.manifest.config_digest, "arrays": arrays}

    first = content(store, ("train", "valid"))
    extra = [
        content(one.store, ("train",)) | {"vocals": one.vocals, "accompaniment": one.accompaniment}
        for one in (pool.sets[1:] if pool else ())
    ]
    return value_digest(first | {"extra": extra} if extra else first)


@functools.cache
def code_digest() -> str:
    """SHA-256, first 16 digits, of all source files of vocsep and storage: tells two states of the code apart."""
    vocsep, storage = Path(__file__).parents[1], Path(calling.__file__).parent
    root = vocsep.parent
    files = sorted({*storage.rglob("*.py"), *vocsep.rglob("*.py")})
    return value_digest([[path.relative_to(root).as_posix(), file_digest(path)] for path in files])[:16]


def describe_model(config: TrainConfig, store: SpectrogramStore, pool: SongPool | None = None) -> dict[str, Any]:
    """What a model file says of the model's origin, as JSON-like values."""
    manifest, pool = store.manifest, pool or SongPool(store)
    return {
        "format": "vocsep-model",
        "format_version": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "architecture": describe_architecture(config, store).model_dump(mode="json"),
        "spectrogram": spectrogram_config(store).model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
        "targets": list(config.targets),
        "data": {
            "dataset": manifest.kind,
            "digest": training_digest(store, pool),
            "train": sorted(track.name for track in pool.tracks),
            "valid": sorted(track.name for track in store.tracks("valid")),
        },
        "versions": {
            "vocsep": version("vocsep"),
            "code": code_digest(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "licence": "Use of these weights is bound by the licenses of the songs that they were trained on.",
    }
