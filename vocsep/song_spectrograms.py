"""From one song to its spectrograms in the store."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import UserError
from storage.files import file_digest
from storage.manifest import SourceFile, TrackRecord
from storage.track_writer import write_track
from vocsep.audio import resample, to_channels
from vocsep.dataset import Song, read_sources
from vocsep.preprocessing import StoreConfig
from vocsep.spectrogram import magnitudes


def describe_source(path: Path) -> SourceFile:
    """Size, modification time and digest of a source file."""
    status = path.stat()
    return SourceFile(path=str(path), bytes=status.st_size, modified_ns=status.st_mtime_ns, sha256=file_digest(path))


def preprocess_song(song: Song, store_path: Path, config: StoreConfig) -> TrackRecord:
    """Decode one song, compute its spectrograms and write its track whole.

    Songs of the `valid` split also get their waveforms at the preset's rate, for SDR during training.

    Raises
    ------
    UserError
        If the song's files cannot be read or do not go together.
    """
    spectrogram = config.spectrogram
    for path in song.feature_paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    sources = [describe_source(path) for path in song.feature_paths]
    waveforms, sample_rate = read_sources(song, ("mixture", "vocals"))
    mixture, vocals = waveforms["mixture"], waveforms["vocals"]
    arrays: dict[str, npt.NDArray[np.generic]] = {
        name: values.astype(config.dtype)
        for name, values in magnitudes(mixture, vocals, sample_rate, spectrogram).items()
    }
    if song.split == "valid":
        for name, waveform in (("mixture_waveform", mixture), ("vocals_waveform", vocals)):
            arrays[name] = resample(to_channels(waveform, spectrogram.channels), sample_rate, spectrogram.sample_rate)
    return write_track(
        store_path,
        song.id,
        name=song.name,
        split=song.split,
        seconds=mixture.shape[1] / sample_rate,
        arrays=arrays,
        sources=sources,
    )
