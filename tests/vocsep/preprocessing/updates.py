"""Small songs, and stores that are brought up to date with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import soxr
from numpy.typing import NDArray

from storage.store import SpectrogramStore
from vocsep.datasets.songs import Dataset
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.plan import Plan
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import updating
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config

FINE = StoreConfig(spectrogram=load_spectrogram_config("fine"))


NOTEBOOK = StoreConfig(spectrogram=load_spectrogram_config("notebook"), dtype="float32")


Floats = NDArray[Any]


CopyStore = Callable[[], SpectrogramStore]


def decoded(path: Path, stream: int) -> Floats:
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[stream]))
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def expected_spectrograms(path: Path, config: SpectrogramConfig) -> dict[str, Floats]:
    """Magnitudes of mixture, vocals and their difference in the time domain, in float64, `(channels, frames, bins)`."""
    mixture, vocals = decoded(path, 0).astype(np.float64), decoded(path, 4).astype(np.float64)
    found = {}
    for name, signal in (("mixture", mixture), ("vocals", vocals), ("accompaniment", mixture - vocals)):
        if config.channels == 1:
            signal = signal.mean(axis=0, keepdims=True)
        signal = soxr.resample(signal.T, 44100, config.sample_rate, quality="HQ").T
        spectrum = librosa.stft(
            signal, n_fft=config.n_fft, hop_length=config.hop_length, center=True, pad_mode="constant"
        )
        found[name] = np.abs(spectrum[:, 1:]).transpose(0, 2, 1)
    return found


def run(
    path: Path, dataset: Dataset, config: StoreConfig = FINE, *, prune: bool = False
) -> tuple[SpectrogramStore, Plan]:
    """One preprocess run, as the flow does it."""
    with updating(path, dataset, config, prune=prune) as (update, todo):
        for song in todo.pending:
            update.add(preprocess_song(song, path, config))
    return update, todo


def saved(path: Path) -> list[str]:
    """Names of the tracks that the manifest on the disk names."""
    return sorted(track.name for track in SpectrogramStore.open(path).manifest.tracks.values())


def names(todo: Plan) -> list[str]:
    return sorted(song.name for song in todo.pending)


def paths_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
