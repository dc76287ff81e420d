"""What the page shows and plays of a song, made of the parts of its separation as they go by."""

import contextlib
import json
from collections.abc import Generator, Iterable
from pathlib import Path

import numpy as np
import soundfile

from storage.files import write_atomically
from vocsep.arrays import Waveform
from vocsep.audio.info import AudioInfo
from vocsep.audio.opening import system_name
from vocsep.audio.resampling import Resampler
from vocsep.html.peaks import Peaks
from vocsep.html.pictures import draw_mask, draw_spectrogram, shown_band
from vocsep.html.sounds import in_stereo
from vocsep.models.masks import Groups
from vocsep.page.records import STEMS, Sound
from vocsep.page.songs import PEAKS
from vocsep.separation.drawing import Columns
from vocsep.separation.stream import Part, SongSeparator
from vocsep.spectrograms.config import SpectrogramConfig

# What every browser plays; other rates are resampled.
_RATES = (8000, 48_000)
_OTHER_RATE = 44_100


class Heard:
    """A separator that also writes, into a folder, copies to listen to, peaks and pictures of what it separates.

    It takes the place of the separator in `separate_file`, so that a song is separated once.
    """

    def __init__(self, separator: SongSeparator, info: AudioInfo, folder: Path) -> None:
        self._separator = separator
        self._info = info
        self._folder = folder
        self.sound: Sound | None = None

    @property
    def spectrogram(self) -> SpectrogramConfig:
        """Of the model."""
        return self._separator.spectrogram

    def stream(self, blocks: Iterable[Waveform], sample_rate: int, groups: Groups) -> Generator[Part]:
        """As that of the separator."""
        self._folder.mkdir(parents=True, exist_ok=True)
        columns = Columns(self._info, self.spectrogram)
        with contextlib.ExitStack() as stack:
            copies = {
                stem: stack.enter_context(_Copy(self._folder / f"{stem}.flac", self._info.channels, sample_rate))
                for stem in STEMS
            }
            parts = stack.enter_context(contextlib.closing(self._separator.stream(blocks, sample_rate, groups)))
            for part in parts:
                sounds = (part.mixture, part.vocals, part.mixture - part.vocals)
                for copy, waveform in zip(copies.values(), sounds, strict=True):
                    copy.write(waveform)
                vocals = part.magnitudes * part.mask
                columns.add(
                    mixture=part.magnitudes, vocals=vocals, accompaniment=part.magnitudes - vocals, mask=part.mask
                )
                yield part
            for copy in copies.values():
                copy.finish()
        self._draw(columns)
        peaks = {stem: copy.peaks.columns() for stem, copy in copies.items()}
        write_atomically(self._folder / PEAKS, json.dumps(peaks, separators=(",", ":")).encode())
        mixture = copies["mixture"]
        self.sound = Sound(
            sample_rate=mixture.rate,
            channels=mixture.channels,
            frames=mixture.frames,
            rms={stem: copy.rms for stem, copy in copies.items()},
            hertz=shown_band(self.spectrogram),
        )

    def _draw(self, columns: Columns) -> None:
        spectra = columns.joined()
        draw_mask(self._folder / "mask.png", spectra.pop("mask"), self.spectrogram)
        top = max(float(spectrum.max(initial=0.0)) for spectrum in spectra.values()) or 1.0
        for stem, spectrum in spectra.items():
            draw_spectrogram(self._folder / f"{stem}.png", spectrum, self.spectrogram, top)


class _Copy:
    """A stem as a 16-bit FLAC file of one or two channels, its peaks and its power."""

    def __init__(self, path: Path, channels: int, sample_rate: int) -> None:
        self.channels = min(2, channels)
        self.rate = sample_rate if _RATES[0] <= sample_rate <= _RATES[1] else _OTHER_RATE
        self.peaks = Peaks()
        self.frames = 0
        self._power = 0.0
        self._resampler = Resampler(self.channels, sample_rate, self.rate)
        # The fastest level: a copy is for a day, and larger ones are written as fast.
        self._file = soundfile.SoundFile(
            system_name(path), "w", self.rate, self.channels, format="FLAC", subtype="PCM_16", compression_level=0.0
        )

    def __enter__(self) -> "_Copy":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @property
    def rms(self) -> float:
        """Root mean square of all samples so far."""
        return float(np.sqrt(self._power / max(1, self.frames * self.channels)))

    def write(self, waveform: Waveform) -> None:
        """Append `(channels of the song, samples)`."""
        self._write(self._resampler.process(in_stereo(waveform)))

    def finish(self) -> None:
        """Append what the resampler still holds."""
        self._write(self._resampler.process(np.zeros((self.channels, 0), dtype=np.float32), last=True))

    def _write(self, waveform: Waveform) -> None:
        if not waveform.size:
            return
        cut = waveform.clip(-1, 1)
        self._file.write(cut.T)
        self.peaks.add(cut)
        self.frames += cut.shape[1]
        self._power += float(np.square(cut, dtype=np.float64).sum())
