"""Whether the disk has room for songs."""

import math
from collections.abc import Iterable

import numpy as np

from storage.errors import UserError
from storage.files import free_bytes
from storage.manifest import SPECTROGRAMS
from storage.shards import shard_bytes
from storage.store import SpectrogramStore
from storage.track_writer import FRAMES_PER_CHUNK, SAMPLES_PER_CHUNK
from vocsep.audio.reading import audio_info
from vocsep.datasets.songs import Song
from vocsep.preprocessing.config import StoreConfig

_SMALL_FILES_BYTES = 100_000  # of a track: folders, metadata, and the last block of every file
_MARGIN = 1.02


def require_room(store: SpectrogramStore, songs: Iterable[Song], config: StoreConfig) -> None:
    """Raise `UserError` if the tracks of `songs` do not fit on the store's disk with what stays in the store."""
    songs = tuple(songs)
    held = store.manifest.tracks
    replaced = sum(held[song.id].bytes for song in songs if song.id in held)
    needed, free = estimated_bytes(songs, config) - replaced, free_bytes(store.path)
    if needed > free:
        raise UserError(
            f"{store.path}: {len(songs)} songs need {megabytes(needed)}, {megabytes(free)} are free; make room or "
            "give another store path"
        )


def estimated_bytes(songs: Iterable[Song], config: StoreConfig) -> int:
    """Bytes that the tracks of `songs` take, with a little to spare, from what the headers of their files say.

    Songs whose files cannot be read count as nothing.
    """
    spectrogram, item_bytes = config.spectrogram, np.dtype(config.dtype).itemsize
    total = 0
    for song in songs:
        channels, seconds = _extent(song)
        if channels == 0:
            continue
        channels = min(channels, spectrogram.channels)
        samples = math.ceil(seconds * spectrogram.sample_rate)
        frames = 1 + samples // spectrogram.hop_length
        arrays = 1 if song.only else len(SPECTROGRAMS)
        track = arrays * shard_bytes((channels, frames, spectrogram.bins), FRAMES_PER_CHUNK, item_bytes)
        if song.split == "valid":
            track += 2 * shard_bytes((channels, samples), SAMPLES_PER_CHUNK, np.dtype(np.float32).itemsize)
        total += math.ceil(_MARGIN * track) + _SMALL_FILES_BYTES
    return total


def _extent(song: Song) -> tuple[int, float]:
    """Channels and seconds of a song; zeros if they cannot be told."""
    channels, seconds = 0, 0.0
    for source in song.mixture + song.vocals:
        try:
            info = audio_info(source.path)
        except UserError:
            continue
        seconds = max(seconds, info.seconds)
        channels = max(channels, info.channels if source.channel is None else 1)
    return channels, seconds


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:,.0f} MB"
