"""Folders of small songs."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from hypothesis import strategies as st
from numpy.typing import NDArray

from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset, Song, song_key

RATE = 8000


STEMS = ("mixture", "drums", "bass", "other", "vocals")


ALL = ("mixture", "vocals", "accompaniment")


Floats = NDArray[Any]


names_of_songs = st.lists(
    st.text("abcdeÉñ漢 -'.0123", min_size=1, max_size=12).filter(lambda name: name[0] != "."),
    unique_by=song_key,
    max_size=25,
)


def noise(seed: int, seconds: float = 0.5, channels: int = 2, rate: int = RATE) -> Floats:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (channels, round(seconds * rate))).astype(np.float32)


def put(path: Path, waveform: Floats, rate: int = RATE) -> Floats:
    """Write a wav file whose samples come back bit by bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate, subtype="FLOAT")
    return waveform


def only_song(root: Path, kind: str = "auto") -> Song:
    dataset = open_dataset(root, kind)
    assert dataset.problems == {}
    (song,) = dataset.songs
    return song


def splits_of(dataset: Dataset) -> dict[str, str]:
    return {song.name: song.split for song in dataset.songs}
