"""All that decides the bytes in a store."""

from typing import Literal

from storage.store import SpectrogramStore
from storage.track_writer import Compression
from vocsep.config import Settings
from vocsep.spectrograms.config import SpectrogramConfig


def spectrogram_config(store: SpectrogramStore) -> SpectrogramConfig:
    """Spectral settings of a store."""
    return StoreConfig.model_validate(store.manifest.config).spectrogram


class StoreConfig(Settings):
    """All that decides the bytes in a store: the spectrogram's settings, the stored type and its compression."""

    spectrogram: SpectrogramConfig
    dtype: Literal["float16", "float32"] = "float16"
    compression: Compression = "none"
