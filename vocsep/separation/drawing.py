"""The spectrograms of a separated song, gathered block by block and drawn."""

from pathlib import Path

import numpy as np

from vocsep.arrays import Spectrogram, Waveform
from vocsep.audio.info import AudioInfo
from vocsep.separation.stream import Part
from vocsep.spectrograms.config import SpectrogramConfig

_COLUMNS = 1500


class Columns:
    """Spectrograms of a song that come in parts, narrowed to at most some 1500 to 3000 columns as they come."""

    def __init__(self, info: AudioInfo, spectrogram: SpectrogramConfig) -> None:
        self._frames_per_second = spectrogram.frames_per_second
        self._frames_per_column = max(1, int(info.seconds * spectrogram.frames_per_second / _COLUMNS))
        self._waiting: dict[str, Spectrogram] = {}
        self._columns: dict[str, list[Waveform]] = {}
        self._frames = 0

    def add(self, **parts: Spectrogram) -> None:
        """Add the next frames, `(channels, frames, bins)` by name; a column is the greatest of its frames."""
        for name, values in parts.items():
            frames = values.mean(axis=0)
            if name in self._waiting:
                frames = np.concatenate([self._waiting[name], frames])
            whole = len(frames) // self._frames_per_column * self._frames_per_column
            columns = frames[:whole].reshape(-1, self._frames_per_column, frames.shape[1]).max(axis=1)
            self._columns.setdefault(name, []).append(columns)
            self._waiting[name] = frames[whole:]
        self._frames += values.shape[1]

    @property
    def seconds(self) -> float:
        """How long a stretch the frames so far cover."""
        return self._frames / self._frames_per_second

    def joined(self) -> dict[str, Waveform]:
        """What came in, `(columns, bins)` by name."""
        spectra = {}
        for name, columns in self._columns.items():
            rest = self._waiting[name]
            spectra[name] = np.concatenate([*columns, rest.max(axis=0, keepdims=True)] if len(rest) else columns)
        return spectra


class Drawing:
    """A picture of the spectrograms of a song that comes in parts."""

    def __init__(self, info: AudioInfo, spectrogram: SpectrogramConfig) -> None:
        self._title = info.path.name
        self._config = spectrogram
        self._columns = Columns(info, spectrogram)

    def add(self, part: Part) -> None:
        """Add what the model saw of a part, and predicted."""
        vocals = part.magnitudes * part.mask
        self._columns.add(mixture=part.magnitudes, vocals=vocals, accompaniment=part.magnitudes - vocals)

    def write(self, path: Path) -> None:
        """Write the picture to a file."""
        from vocsep.spectrograms.plot import draw_spectrograms

        seconds, hertz = (0, self._columns.seconds), self._config.band_hz
        draw_spectrograms(path, self._columns.joined(), seconds=seconds, hertz=hertz, title=self._title, dpi=120)
