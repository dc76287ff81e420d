"""Audio files in and out: decoding with PyAV, resampling with soxr, encoding with soundfile."""

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard

from storage.errors import UserError

Waveform = npt.NDArray[np.float32]

AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".mp3", ".m4a", ".mp4", ".aac", ".ogg", ".opus", ".aif", ".aiff", ".wma", ".mkv", ".webm", ".mov")
)
SUBTYPES = {"wav": "FLOAT", "flac": "PCM_24"}
LENGTH_IN_HEADER = ("aiff", "flac")
BLOCK_SAMPLES = 65_536


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file; whatever FFmpeg says of a bad one becomes one line."""
    try:
        with av.open(path, mode="r", metadata_errors="replace") as container:
            yield container
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read as audio ({reason})") from None


def _refuse_cut_wav(path: Path) -> None:
    """FFmpeg takes what there is of a wav file; its header tells how much there should be."""
    with path.open("rb") as file:
        riff = file.read(12)
        if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
            return
        while len(header := file.read(8)) == 8:
            size = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                left = path.stat().st_size - file.tell()
                if size > left and size != 0xFFFFFFFF:  # which stands for a length not known when writing began
                    raise UserError(f"{path}: cut off, {size - left} of {size} bytes of sound are missing")
                return
            file.seek(size + size % 2, os.SEEK_CUR)


def _refuse_cut_index(path: Path, stream: AudioStream) -> None:
    """FFmpeg takes what there is of an mp4 or mov file, too; its index tells where the packets should be."""
    if len(stream.index_entries) > 0:
        last = stream.index_entries[-1]
        missing = last.pos + last.size - path.stat().st_size
        if missing > 0:
            raise UserError(f"{path}: cut off, at least {missing} bytes of sound are missing")


def _refuse_cut_stream(path: Path, stream: AudioStream, samples: int) -> None:
    """The header of an aiff or flac file tells how many samples there are, 0 for unknown."""
    declared = round((stream.duration or 0) * (stream.time_base or 0) * (stream.rate or 0))
    if samples < declared:
        raise UserError(f"{path}: cut off, {declared - samples} of {declared} samples are missing")


class _StreamBuffer:
    """Decoded samples of one stream that wait to be cut into blocks, in FFmpeg's own queue.

    A song has ten thousand frames, so that whatever Python does with each of them counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue = av.AudioFifo()
        self.taken = 0

    @property
    def sample_rate(self) -> int:
        """In Hz, once there is a frame."""
        return self._queue.sample_rate

    @property
    def waiting(self) -> int:
        """Samples in the queue."""
        return self._queue.samples

    def add(self, frame: AudioFrame) -> None:
        """Append a frame."""
        frame.pts = None  # the queue would insist on gapless time stamps
        try:
            self._queue.write(frame)
        except ValueError:
            raise UserError(f"{self._path}: sample rate or channel layout changes within the file") from None

    def take(self) -> Waveform:
        """The next `BLOCK_SAMPLES` samples, or what is left."""
        frame = self._queue.read(min(self.waiting, BLOCK_SAMPLES))
        if frame is None:
            return np.empty((self._queue.layout.nb_channels, 0), dtype=np.float32)
        block = self._as_float(frame)
        if not np.isfinite(block).all():
            raise UserError(f"{self._path}: holds NaN or infinite samples")
        self.taken += frame.samples
        return block

    def _as_float(self, frame: AudioFrame) -> Waveform:
        """Samples of any format, `(channels, samples)` float32; integers are scaled to [-1, 1)."""
        try:
            samples = frame.to_ndarray()
        except ValueError:
            raise UserError(f"{self._path}: samples of type {frame.format.name} cannot be read") from None
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        if samples.dtype == np.uint8:
            return (samples.astype(np.float32) - 128.0) / 128.0
        if np.issubdtype(samples.dtype, np.integer):
            full_scale = float(1 << (8 * samples.dtype.itemsize - 1))
            return samples.astype(np.float32) / np.float32(full_scale)
        return samples.astype(np.float32, copy=False)


@dataclass(frozen=True)
class Block:
    """The same stretch of time from several streams of a file.

    Attributes
    ----------
    waveforms
        `(channels, samples)` float32 of each stream: `BLOCK_SAMPLES` samples, towards a stream's end fewer, then none.
    sample_rate
        In Hz, of all of them.
    """

    waveforms: list[Waveform]
    sample_rate: int


def _next_block(path: Path, buffers: Collection[_StreamBuffer]) -> Block:
    rates = {buffer.sample_rate for buffer in buffers}
    if len(rates) != 1:
        raise UserError(f"{path}: its streams have different sample rates ({', '.join(map(str, sorted(rates)))})")
    return Block([buffer.take() for buffer in buffers], rates.pop())


def decode_blocks(path: Path, streams: tuple[int, ...] = (0,)) -> Iterator[Block]:
    """Decode the given audio streams of a file, and only them, in one pass, block by block.

    A file of any length needs the memory of a few blocks, if it interleaves its streams. What is wrong with a file may
    show as late as at its end.

    Parameters
    ----------
    path
        Any file that FFmpeg's libraries read.
    streams
        Indices among the file's audio streams, all of one sample rate; blocks hold them in this order.

    Raises
    ------
    UserError
        If the file is missing, is not audio, was cut off, lacks a stream, changes its rate or layout midway, holds no
        samples, or holds NaN or infinite samples.
    """
    with _opened(path) as container:
        _refuse_cut_wav(path)
        available = container.streams.audio
        if max(streams) >= len(available):
            raise UserError(f"{path}: has {len(available)} audio streams, stream {max(streams)} is needed")
        chosen = [available[index] for index in streams]
        if "mp4" in container.format.name.split(","):
            for stream in chosen:
                _refuse_cut_index(path, stream)
        for other in container.streams:
            if other not in chosen:
                other.discard = Discard.all
        buffers = {stream.index: _StreamBuffer(path) for stream in chosen}
        for packet in container.demux(chosen):
            buffer = buffers[packet.stream.index]
            for frame in packet.decode():
                buffer.add(frame)  # type: ignore[arg-type]
            if buffer.waiting >= BLOCK_SAMPLES and all(each.waiting >= BLOCK_SAMPLES for each in buffers.values()):
                yield _next_block(path, buffers.values())
        if container.format.name in LENGTH_IN_HEADER:
            for stream, buffer in zip(chosen, buffers.values(), strict=True):
                _refuse_cut_stream(path, stream, buffer.taken + buffer.waiting)
    for index, buffer in zip(streams, buffers.values(), strict=True):
        if not buffer.taken and not buffer.waiting:
            raise UserError(f"{path}: audio stream {index} holds no samples")
    while any(buffer.waiting for buffer in buffers.values()):
        yield _next_block(path, buffers.values())


def decode_streams(path: Path, streams: tuple[int, ...] = (0,)) -> tuple[list[Waveform], int]:
    """Whole waveforms of the given audio streams (see `decode_blocks`).

    Returns
    -------
    waveforms, sample_rate
        One `(channels, samples)` float32 array per stream, at the file's own rate in Hz.
    """
    blocks = list(decode_blocks(path, streams))
    waveforms = [np.concatenate([block.waveforms[n] for block in blocks], axis=1) for n in range(len(streams))]
    return waveforms, blocks[0].sample_rate


def decode(path: Path) -> tuple[Waveform, int]:
    """First audio stream of a file: `(channels, samples)` float32 and its sample rate in Hz (see `decode_streams`)."""
    waveforms, sample_rate = decode_streams(path)
    return waveforms[0], sample_rate


def resample(waveform: Waveform, from_rate: int, to_rate: int) -> Waveform:
    """Resample `(channels, samples)` float32 with soxr (high quality); the same array when the rates are equal."""
    if from_rate == to_rate:
        return waveform
    resampled: Waveform = soxr.resample(waveform.T, from_rate, to_rate).astype(np.float32, copy=False).T
    return resampled


class Resampler:
    """Resamples a waveform that comes in blocks; joined, the results are exactly those of `resample` for the whole."""

    def __init__(self, channels: int, from_rate: int, to_rate: int) -> None:
        # One for each channel: soxr would interleave them, at a quarter more time.
        self._streams = [soxr.ResampleStream(from_rate, to_rate, 1, "float32") for _ in range(channels)]
        self._equal = from_rate == to_rate

    def process(self, block: Waveform, *, last: bool = False) -> Waveform:
        """The samples that follow from the next `(channels, samples)`, some of them only with later blocks."""
        if self._equal:
            return block
        return np.stack([stream.resample_chunk(row, last) for stream, row in zip(self._streams, block, strict=True)])


def to_channels(waveform: Waveform, channels: int) -> Waveform:
    """At most `channels` channels: the mean of all for 1, stereo and mono untouched for 2.

    Raises
    ------
    UserError
        If `waveform` has more than two channels and two are wanted.
    """
    if channels == 1:
        mono: Waveform = waveform.mean(axis=0, keepdims=True)
        return mono
    if len(waveform) > channels:
        raise UserError(f"{len(waveform)} channels; only mono and stereo songs can be used here")
    return waveform


def encode(path: Path, waveform: Waveform, sample_rate: int) -> None:
    """Write `(channels, samples)` to a wav (32-bit float) or flac (24-bit) file, named by its suffix.

    The file is written under a temporary name and renamed. Flac holds [-1, 1) only; samples beyond are clipped.

    Raises
    ------
    UserError
        If the suffix is another, or the file cannot be written.
    """
    container = path.suffix.removeprefix(".").lower()
    if container not in SUBTYPES:
        raise UserError(f"{path}: cannot write this format; use {' or '.join(SUBTYPES)}")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
        os.close(descriptor)
        soundfile.write(temporary, waveform.T, sample_rate, subtype=SUBTYPES[container], format=container.upper())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
