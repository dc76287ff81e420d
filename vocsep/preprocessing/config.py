"""All that decides the bytes in a store."""

from pathlib import Path
from typing import Literal

from storage.calling import call
from storage.store import SpectrogramStore
from storage.track_writer import Compression
from vocsep.config import Settings, validated
from vocsep.spectrograms.config import SpectrogramConfig


def spectrogram_config(store: SpectrogramStore) -> SpectrogramConfig:
    """Spectral settings of a store."""
    return store_settings(store).spectrogram


def store_of_all_bins(path: Path | str) -> str:
    """The command that makes a store at `path` with all bins."""
    return call(f"preprocess PRESET=fine-513 STORE={path}", f"preprocess --preset fine-513 --store {path}")


def store_settings(store: SpectrogramStore) -> "StoreConfig":
    """What decides the bytes in a store; `UserError` if the store says something that cannot be."""
    return validated(StoreConfig, store.manifest.config, f"{store.path}: configuration")


class StoreConfig(Settings):
    """All that decides the bytes in a store: the spectrogram's settings, the stored type and its compression."""

    spectrogram: SpectrogramConfig
    dtype: Literal["float16", "float32"] = "float16"
    compression: Compression = "none"
