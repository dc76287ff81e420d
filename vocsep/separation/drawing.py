"""The spectrograms of a separated song, gathered block by block and drawn."""

from pathlib import Path

import numpy as np

from vocsep.arrays import Spectrogram, Waveform
from vocsep.audio.info import AudioInfo
from vocsep.spectrograms.config import SpectrogramConfig

_COLUMNS = 1500


class Drawing:
    """Spectrograms of a song that comes in parts, narrowed to columns as they come."""

    def __init__(self, info: AudioInfo, spectrogram: SpectrogramConfig) -> None:
        self._title = info.path.name
        self._config = spectrogram
        frames = info.seconds * self._config.frames_per_second
        self._frames_per_column = max(1, int(frames / _COLUMNS))
        self._waiting: dict[str, Spectrogram] = {}
        self._columns: dict[str, list[Waveform]] = {}
        self._frames = 0

    def add(self, magnitudes: Spectrogram, mask: Spectrogram) -> None:
        """Add a part's magnitudes and mask, `(channels, frames, bins)`; a column is the greatest of its frames."""
        vocals = magnitudes * mask
        for name, values in {"mixture": magnitudes, "vocals": vocals, "accompaniment": magnitudes - vocals}.items():
            frames = values.mean(axis=0)
            if name in self._waiting:
                frames = np.concatenate([self._waiting[name], frames])
            whole = len(frames) // self._frames_per_column * self._frames_per_column
            columns = frames[:whole].reshape(-1, self._frames_per_column, frames.shape[1]).max(axis=1)
            self._columns.setdefault(name, []).append(columns)
            self._waiting[name] = frames[whole:]
        self._frames += magnitudes.shape[1]

    def draw(self, path: Path) -> None:
        """Write the picture to a file."""
        from vocsep.spectrograms.plot import draw_spectrograms

        spectra = {}
        for name, columns in self._columns.items():
            rest = self._waiting[name]
            spectra[name] = np.concatenate([*columns, rest.max(axis=0, keepdims=True)] if len(rest) else columns)
        seconds = (0, self._frames / self._config.frames_per_second)
        draw_spectrograms(path, spectra, seconds=seconds, hertz=self._config.band_hz, title=self._title, dpi=120)
