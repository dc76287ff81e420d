"""From one song to its spectrograms in the store."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import UserError
from storage.files import file_digest
from storage.manifest import SourceFile, TrackRecord
from storage.store import SPECTROGRAMS
from storage.track_writer import track_writer
from vocsep.audio import Resampler, Waveform, to_channels
from vocsep.config import SpectrogramConfig
from vocsep.dataset import Song, source_blocks
from vocsep.preprocessing import StoreConfig
from vocsep.spectrogram import Spectrogram, magnitude_blocks

PAIR = ("mixture", "vocals")
# Joined to pieces that the system gives and takes back as they are: between them, small blocks would leave gaps.
PIECE_BLOCKS = 32


def describe_source(path: Path) -> SourceFile:
    """Size, modification time and digest of a source file."""
    status = path.stat()
    return SourceFile(path=str(path), bytes=status.st_size, modified_ns=status.st_mtime_ns, sha256=file_digest(path))


def preprocess_song(song: Song, store_path: Path, config: StoreConfig) -> TrackRecord:
    """Decode one song, compute its spectrograms and write its track whole.

    Songs of the `valid` split also get their waveforms at the preset's rate, for SDR during training. However long a
    song is, no more of it is ever whole in memory than mixture and vocals at the preset's rate.

    Raises
    ------
    UserError
        If the song's files cannot be read or do not go together, or are too loud for the stored type.
    """
    for path in song.feature_paths:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    sources = tuple(describe_source(path) for path in song.feature_paths)
    spectrogram = config.spectrogram
    blocks, seconds = _at_preset_rate(song, spectrogram)
    channels, samples = blocks[0].shape[1], sum(block.shape[-1] for block in blocks)
    shape = (channels, 1 + samples // spectrogram.hop_length, spectrogram.bins)
    with track_writer(
        store_path, song.id, name=song.name, split=song.split, seconds=seconds, compression=config.compression
    ) as writer:
        arrays = {name: writer.array(name, shape, config.dtype) for name in SPECTROGRAMS}
        if song.split == "valid":
            for number, name in enumerate(PAIR):
                waveform = writer.array(f"{name}_waveform", (channels, samples), np.float32)
                for block in blocks:
                    waveform.write(block[number])
        for name, values in magnitude_blocks(_taken(blocks), spectrogram):
            if not values.max() <= np.finfo(config.dtype).max:
                raise UserError(f"{song.name}: too loud for {config.dtype}; its samples should lie within -1 and 1")
            arrays[name].write(to_half(values) if config.dtype == "float16" else values)
    assert writer.record is not None
    return writer.record.model_copy(update={"sources": sources})


def _at_preset_rate(song: Song, config: SpectrogramConfig) -> tuple[list[Waveform], float]:
    """Mixture and vocals in pieces of `(2, channels, samples)` at the preset's rate, and the song's seconds."""
    pieces: list[Waveform] = []
    blocks: list[Waveform] = []
    resamplers: list[Resampler] = []
    samples = 0
    for waveforms, sample_rate in source_blocks(song, PAIR):
        try:
            pair = [to_channels(waveforms[name], config.channels) for name in PAIR]
        except UserError as error:
            raise UserError(f"{song.name}: {error}") from None
        samples += waveforms["mixture"].shape[1]
        resamplers = resamplers or [Resampler(len(pair[0]), sample_rate, config.sample_rate) for _ in PAIR]
        blocks.append(np.stack([resampler.process(one) for resampler, one in zip(resamplers, pair, strict=True)]))
        if len(blocks) == PIECE_BLOCKS:
            pieces.append(np.concatenate(blocks, axis=-1))
            blocks.clear()
    blocks.append(np.stack([resampler.process(pair[0][:, :0], last=True) for resampler in resamplers]))
    pieces.append(np.concatenate(blocks, axis=-1))
    pieces = [piece for piece in pieces if piece.size]
    if not pieces:
        raise UserError(f"{song.name}: too short ({samples} samples)")
    return pieces, samples / sample_rate


def _taken(blocks: list[Waveform]) -> Iterator[Waveform]:
    """The blocks one by one; each is given up as it is taken."""
    blocks.reverse()
    while blocks:
        yield blocks.pop()


def to_half(values: Spectrogram) -> npt.NDArray[np.float16]:
    """Magnitudes as float16, bit by bit what `astype` gives, which takes ten times as long and more for quiet songs.

    Parameters
    ----------
    values
        Float32 from 0 to 65504, the largest of float16.
    """
    # The power of two below each value, as float32 bits. Below 2**-14, float16 keeps the steps that it has above.
    power = values.view(np.uint32) & 0x7F80_0000
    np.maximum(power, (127 - 14) << 23, out=power)
    # A sum with 2**13 times the power is rounded to float16's steps, and counts them in its last bits.
    power += 13 << 23
    half = (values + power.view(np.float32)).view(np.uint32)
    half -= power
    power >>= 13
    half += power
    half -= (127 - 14 + 13) << 10
    result: npt.NDArray[np.float16] = half.astype(np.uint16).view(np.float16)
    return result
