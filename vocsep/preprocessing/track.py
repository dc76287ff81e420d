"""From one song to its spectrograms in the store."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import NotFound, UserError
from storage.files import file_digest
from storage.manifest import SPECTROGRAMS, SourceFile, TrackRecord
from storage.track_writer import track_writer
from vocsep.arrays import Waveform
from vocsep.audio.resampling import Resampler, to_channels
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import source_blocks
from vocsep.kernels import fill_magnitudes
from vocsep.preprocessing.config import StoreConfig
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import TooLoudError, magnitude_blocks
from vocsep.spectrograms.stft import stft_blocks

PAIR = ("mixture", "vocals")
# Samples of what the system gives and takes back as it is: between them, small blocks would leave gaps.
PIECE_SAMPLES = 1 << 19


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
            raise NotFound(f"{path}: no such file")
    sources = tuple(describe_source(path) for path in song.feature_paths)
    spectrogram = config.spectrogram
    blocks, seconds = _at_preset_rate(song, spectrogram)
    channels, samples = blocks[0].shape[1], sum(block.shape[-1] for block in blocks)
    shape = (channels, 1 + samples // spectrogram.hop_length, spectrogram.bins)
    with track_writer(
        store_path, song.id, name=song.name, split=song.split, seconds=seconds, compression=config.compression
    ) as writer:
        # What there is alone has been read as mixture.
        written = {"mixture": song.only} if song.only else {name: name for name in SPECTROGRAMS}
        arrays = {made: writer.array(name, shape, config.dtype) for made, name in written.items()}
        if song.split == "valid":
            for number, name in enumerate(PAIR):
                waveform = writer.array(f"{name}_waveform", (channels, samples), np.float32)
                for block in blocks:
                    waveform.write(block[number])
        make = half_magnitude_blocks if config.dtype == "float16" else magnitude_blocks
        try:
            for made, values in make(_taken(blocks), spectrogram):
                if made in arrays:
                    arrays[made].write(values)
        except TooLoudError:
            raise UserError(
                f"{song.name}: too loud for {config.dtype}; its samples should be within -1 and 1"
            ) from None
    assert writer.record is not None
    return writer.record.model_copy(update={"sources": sources})


def _at_preset_rate(song: Song, config: SpectrogramConfig) -> tuple[list[Waveform], float]:
    """Mixture and vocals in pieces of `(2, channels, samples)` at the preset's rate, and the song's seconds."""
    pieces: list[Waveform] = []
    resamplers: list[Resampler] = []
    filled = samples = 0

    def append(pair: list[Waveform], *, last: bool = False) -> None:
        nonlocal filled
        resampled = [resampler.rows(one, last=last) for resampler, one in zip(resamplers, pair, strict=True)]
        channels, length = len(resampled[0]), len(resampled[0][0])
        if not pieces or filled + length > pieces[-1].shape[-1]:
            if pieces:
                pieces[-1] = pieces[-1][..., :filled]
            pieces.append(np.empty((len(PAIR), channels, max(PIECE_SAMPLES, length)), dtype=np.float32))
            filled = 0
        for piece, rows in zip(pieces[-1], resampled, strict=True):
            np.stack(rows, out=piece[:, filled : filled + length])
        filled += length

    for waveforms, sample_rate in source_blocks(song, ("mixture",) if song.only else PAIR):
        if song.only:
            waveforms["vocals"] = np.zeros_like(waveforms["mixture"])
        try:
            pair = [to_channels(waveforms[name], config.channels) for name in PAIR]
        except UserError as error:
            raise UserError(f"{song.name}: {error}") from None
        samples += waveforms["mixture"].shape[1]
        resamplers = resamplers or [Resampler(len(pair[0]), sample_rate, config.sample_rate) for _ in PAIR]
        append(pair)
    append([one[:, :0] for one in pair], last=True)
    pieces[-1] = pieces[-1][..., :filled]
    pieces = [piece for piece in pieces if piece.size]
    if not pieces:
        raise UserError(f"{song.name}: too short ({samples} samples)")
    return pieces, samples / sample_rate


def _taken(blocks: list[Waveform]) -> Iterator[Waveform]:
    """The blocks one by one; each is given up as it is taken."""
    blocks.reverse()
    while blocks:
        yield blocks.pop()


def half_magnitude_blocks(
    blocks: Iterable[Waveform], config: SpectrogramConfig
) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    """What `magnitude_blocks` gives, as float16, in a third of the time.

    A magnitude halfway between two of float16, to the last digit of float32, may become the other one.

    Raises
    ------
    TooLoudError
        If a magnitude is above 65504 or not a number.
    """
    first_bin = 1 if config.dropped_bin == "dc" else 0
    for spectra in stft_blocks(blocks, config.n_fft, config.hop_length):
        bits = np.empty((3, *spectra.shape[1:-1], config.bins), dtype=np.uint16)
        if not fill_magnitudes(spectra.view(np.float32), first_bin, bits):
            raise TooLoudError
        yield from zip(SPECTROGRAMS, bits.view(np.float16), strict=True)
