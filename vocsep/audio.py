"""Audio files in and out: decoding with PyAV, resampling with soxr, encoding with soundfile."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.error import FFmpegError

from storage.errors import UserError

Waveform = npt.NDArray[np.float32]

AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".mp3", ".m4a", ".mp4", ".aac", ".ogg", ".opus", ".aif", ".aiff", ".wma", ".mkv", ".webm", ".mov")
)
SUBTYPES = {"wav": "FLOAT", "flac": "PCM_24"}


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


def _as_float(frame: AudioFrame) -> Waveform:
    """Samples of a decoded frame, `(channels, samples)` float32, integer formats scaled to [-1, 1)."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        full_scale = float(1 << (8 * samples.dtype.itemsize - 1))
        return samples.astype(np.float32) / np.float32(full_scale)
    return samples.astype(np.float32, copy=False)


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


def decode_streams(path: Path, streams: tuple[int, ...] = (0,)) -> tuple[list[Waveform], int]:
    """Decode the given audio streams of a file, and only them, in one pass.

    Parameters
    ----------
    path
        Any file that FFmpeg's libraries read.
    streams
        Indices among the file's audio streams, all of one sample rate.

    Returns
    -------
    waveforms, sample_rate
        One `(channels, samples)` float32 array per stream, at the file's own rate in Hz.

    Raises
    ------
    UserError
        If the file is missing, is not audio, lacks a stream, changes its rate or layout midway, holds no samples, or
        holds NaN or infinite samples.
    """
    with _opened(path) as container:
        _refuse_cut_wav(path)
        available = container.streams.audio
        if max(streams) >= len(available):
            raise UserError(f"{path}: has {len(available)} audio streams, stream {max(streams)} is needed")
        chosen = {available[index].index: index for index in streams}
        blocks: dict[int, list[Waveform]] = {index: [] for index in streams}
        formats: set[tuple[int, int, int]] = set()
        for packet in container.demux([available[index] for index in streams]):
            for frame in packet.decode():
                index = chosen[packet.stream.index]
                formats.add((index, frame.sample_rate, frame.layout.nb_channels))  # type: ignore[union-attr]
                blocks[index].append(_as_float(frame))  # type: ignore[arg-type]
    empty = [index for index in streams if not blocks[index]]
    if empty:
        raise UserError(f"{path}: audio stream {empty[0]} holds no samples")
    rates = {rate for _, rate, _ in formats}
    if len(formats) != len(set(streams)) or len(rates) != 1:
        raise UserError(f"{path}: sample rate or channel layout changes within the file or between its streams")
    waveforms = [np.concatenate(blocks[index], axis=1) for index in streams]
    if not all(np.isfinite(waveform).all() for waveform in waveforms):
        raise UserError(f"{path}: holds NaN or infinite samples")
    return waveforms, rates.pop()


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
