"""All that decides the bytes in a store."""

from typing import Literal

from storage.store import SpectrogramStore
from storage.track_writer import Compression
from vocsep.config import Settings, validated
from vocsep.spectrograms.config import SpectrogramConfig


def spectrogram_config(store: SpectrogramStore) -> SpectrogramConfig:
    """Spectral settings of a store."""
    return store_settings(store).spectrogram


def store_settings(store: SpectrogramStore) -> "StoreConfig":
    """What decides the bytes in a store; `UserError` if the store says something that cannot be."""
    return validated(StoreConfig, store.manifest.config, f"{store.path}: configuration")


class StoreConfig(Settings):
    """All that decides the bytes in a store: the spectrogram's settings, the stored type and its compression."""

    spectrogram: SpectrogramConfig
    dtype: Literal["float16", "float32"] = "float16"
    compression: Compression = "none"
