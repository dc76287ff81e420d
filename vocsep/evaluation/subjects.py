"""What is scored: a trained model, or a folder of estimates that some other program made."""

from dataclasses import dataclass
from pathlib import Path

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.audio.reading import audio_info, decode
from vocsep.datasets.songs import Song
from vocsep.datasets.stems import song_stems
from vocsep.separation.cache import cached_separator
from vocsep.separation.separator import Separator
from vocsep.separation.settings import SeparationSettings
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config

_AAC_FRAME = 1024


@dataclass(frozen=True)
class ModelSubject:
    """A model by the folder of its registry and its name (a version's number or a model folder)."""

    models: Path
    model: str

    @property
    def spectrogram(self) -> SpectrogramConfig:
        """The model's own band and resolution."""
        return self._separator.spectrogram

    def estimate(self, song: Song, mixture: Waveform, sample_rate: int) -> dict[str, Waveform]:
        """Both sources of a song, each of the mixture's shape."""
        return self._separator.separate(mixture, sample_rate)

    @property
    def _separator(self) -> Separator:
        # In float32, for scores that do not depend on the machine.
        return cached_separator(self.models, SeparationSettings(model=self.model, precision="32"))


@dataclass(frozen=True)
class FolderSubject:
    """Estimates in `<folder>/[<split>/]<song's name>/{vocals, accompaniment or other stems}.<any audio>`.

    This is the layout that musdb and museval write and read.
    """

    folder: Path

    @property
    def spectrogram(self) -> SpectrogramConfig:
        """Nothing is known of the band that made the estimates; their ceilings are those of `fine`."""
        return load_spectrogram_config("fine")

    def estimate(self, song: Song, mixture: Waveform, sample_rate: int) -> dict[str, Waveform]:
        """Both sources of a song as they are in the folder: nothing is resampled, cut, padded or rescaled.

        Raises `UserError` if there is no folder for the song, a source is missing, or rate, channels or length are not
        the song's.
        """
        splits = dict.fromkeys((song.split, "train" if song.split == "valid" else song.split, ""))
        # Some programs leave a part of the ending `.stem.mp4` in the name.
        folders = [self.folder / split / name for split in splits for name in (song.name, f"{song.name}.stem")]
        folder = next((entry for entry in folders if entry.is_dir()), None)
        if folder is None:
            raise UserError(f"{self.folder}: no estimates of {song.name!r} (looked for {folders[0]})")
        stems = song_stems(folder)
        if stems.vocals is None or not stems.accompaniment:
            missing = "accompaniment (or other stems)" if stems.vocals else "vocals"
            raise UserError(f"{folder}: {missing} missing; both sources are needed for BSSEval")
        vocals = _read(stems.vocals, mixture, sample_rate)
        accompaniment = _read(stems.accompaniment[0], mixture, sample_rate)
        for path in stems.accompaniment[1:]:
            accompaniment = accompaniment + _read(path, mixture, sample_rate)
        return {"vocals": vocals, "accompaniment": accompaniment}


Subject = ModelSubject | FolderSubject


def read_whole(path: Path) -> tuple[Waveform, int]:
    """`decode`; of an mp4 file, as long as it says: its last AAC frame is filled up with what is no sound of it."""
    waveform, rate = decode(path)
    if path.suffix.lower() in (".m4a", ".mp4"):
        told = round(audio_info(path).seconds * rate)
        if 0 < waveform.shape[1] - told < _AAC_FRAME:
            waveform = waveform[:, :told]
    return waveform, rate


def _read(path: Path, mixture: Waveform, sample_rate: int) -> Waveform:
    waveform, rate = read_whole(path)
    if rate != sample_rate:
        raise UserError(f"{path}: {rate} Hz, the song has {sample_rate} Hz")
    if waveform.shape != mixture.shape:
        raise UserError(
            f"{path}: {len(waveform)} channels of {waveform.shape[1]} samples, the song has "
            f"{len(mixture)} of {mixture.shape[1]}"
        )
    return waveform
