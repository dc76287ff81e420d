"""Audio files in: what a file holds, decoding with PyAV block by block, resampling with soxr."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import soundfile
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, PatchWelcomeError
from av.packet import Packet
from av.stream import Discard, Disposition

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.audio.damage import DamagedSound, announced_frames, refuse_cut
from vocsep.audio.formats import VORBIS_ORDER
from vocsep.audio.info import AudioInfo
from vocsep.audio.opening import opened, system_name
from vocsep.audio.seeking import go_to, refuse_late
from vocsep.audio.tags import bounded

LENGTH_IN_HEADER = ("flac", "tta", "wv", "mxf")
# Formats whose header tells the length to within a frame, or not at all.
_ROUGH_LENGTH_IN_HEADER = ("ape", "tak", "mpc", "mpc8", "dsf", "rm", "nistsphere")
_ROUGHLY_SECONDS = 0.5
# Nothing but frames, one after the other: players pass over what is between them or behind the last.
_BARE_FRAMES = ("mp3", "aac", "ac3", "eac3", "dts", "dtshd", "loas", "amr")
# Of what is before the last frame that could be decoded; the ffmpeg program gives up there, too.
_MOST_FAILURES = 2 / 3
_LOUDEST = 2.0**31
"""Full scale of 32-bit integers, which some programs write as floats; beyond it is garbage."""
BLOCK_SAMPLES = 65_536
_OGG_PAGE_BYTES = 65_307  # at most
# PyAV reads beyond the end of the list of a frame's planes if there are more.
_MOST_PLANES = 7
# FFmpeg's converter, which turns planes into one, takes no more.
_MOST_CHANNELS = 64


def _refuse_cut_index(path: Path, stream: AudioStream) -> None:
    """FFmpeg takes what there is of an mp4 or mov file, too; its index tells where the packets should be."""
    if len(stream.index_entries) > 0:
        last = stream.index_entries[-1]
        missing = last.pos + last.size - path.stat().st_size
        if missing > 0:
            raise DamagedSound(f"{path}: cut off, at least {missing} bytes of sound are missing")


def _refuse_cut_stream(path: Path, container: InputContainer, stream: AudioStream, samples: int) -> None:
    """The headers of some formats tell how many samples there are, 0 for unknown, or roughly how many."""
    name, rate = container.format.name, stream.rate or 0
    declared = round((stream.duration or 0) * (stream.time_base or 0) * rate)
    missing = 0
    if name in LENGTH_IN_HEADER:
        missing = declared - samples
    elif name in _ROUGH_LENGTH_IN_HEADER:
        # What the longest stream lasts is no measure of another.
        if not declared and len(container.streams) == 1:
            declared = round((container.duration or 0) * rate / av.time_base)
        missing = declared - samples if declared - samples > _ROUGHLY_SECONDS * rate else 0
    if missing > 0:
        raise DamagedSound(f"{path}: cut off, {missing} of {declared} samples are missing")


def _refuse_unknown(path: Path, stream: AudioStream) -> None:
    """PyAV gives no codec to a stream that FFmpeg cannot decode."""
    if stream.codec_context is None:
        raise UserError(f"{path}: cannot be read as audio (its codec is not known)")


def _refuse_garbage(path: Path, waveform: Waveform) -> None:
    peak = np.abs(waveform).max(initial=0.0)
    if not peak <= _LOUDEST:  # as for NaN
        raise UserError(
            f"{path}: contains a sample of {peak:.0e}, which is no sound (full scale is 1)"
            if np.isfinite(peak)
            else f"{path}: contains NaN or infinite samples"
        )


def _default_stream(streams: tuple[AudioStream, ...]) -> int:
    """Index of the audio stream that a player takes."""
    return next((index for index, stream in enumerate(streams) if stream.disposition & Disposition.default), 0)


def audio_info(path: Path, track: int | None = None) -> AudioInfo:
    """What a file says of itself, and of its audio track `track`, counted from 1, or that which players take.

    Raises
    ------
    UserError
        If the file is missing or contains no sound, or no such track.
    """
    with opened(path) as container:
        if not container.streams.audio:
            raise UserError(f"{path}: contains no sound")
        index = _default_stream(container.streams.audio) if track is None else track - 1
        if index >= len(container.streams.audio):
            raise UserError(f"{path}: has {len(container.streams.audio)} audio tracks, no track {track}")
        stream = container.streams.audio[index]
        _refuse_unknown(path, stream)
        seconds = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / av.time_base
        layout = stream.layout
        if not stream.rate or not layout.nb_channels:
            raise UserError(f"{path}: cannot be read as audio (no sample rate or no channels)")
        # Most wav files do not say what their one or two channels are.
        layout = av.AudioLayout({"1 channels": "mono", "2 channels": "stereo"}.get(layout.name, layout))
        return AudioInfo(
            path=path,
            sample_rate=stream.rate,
            layout=layout.name,
            channel_names=tuple(channel.name for channel in layout.channels),
            seconds=max(0.0, seconds),
            tags=bounded(stream.metadata | container.metadata),
            has_cover=any(picture.disposition & Disposition.attached_pic for picture in container.streams.video),
            stream=index,
        )


class _StreamBuffer:
    """Decoded samples of one stream that wait to be cut into blocks, in FFmpeg's own queue.

    A song has ten thousand frames, so everything that Python does with each of them counts.
    """

    def __init__(self, path: Path, position: int = 0, start: int = 0) -> None:
        self._path = path
        self._start = start
        self._queue = av.AudioFifo()
        self._channels = 0
        self._interleaver: av.AudioResampler | None = None
        self.taken = position  # or dropped, or never read

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
        channels = frame.layout.nb_channels
        try:
            # The queue trusts in the number of channels, and would read beyond its memory.
            if channels != (self._channels or channels):
                raise ValueError
            self._queue.write(frame)
        except ValueError:
            raise UserError(f"{self._path}: sample rate or number of channels changes within the file") from None
        self._channels = channels
        if self.taken < self._start:
            dropped = min(self._start - self.taken, self.waiting)
            self._queue.read(dropped)
            self.taken += dropped

    def take(self) -> Waveform:
        """The next `BLOCK_SAMPLES` samples, or what is left."""
        frame = self._queue.read(min(self.waiting, BLOCK_SAMPLES))
        if frame is None:
            return np.empty((self._queue.layout.nb_channels, 0), dtype=np.float32)
        block = self._as_float(frame)
        self.taken += frame.samples
        return block

    def _as_float(self, frame: AudioFrame) -> Waveform:
        """Samples of any format, `(channels, samples)` float32, finite; integers are scaled to [-1, 1)."""
        if frame.format.is_planar and self._channels > _MOST_PLANES:
            if self._channels > _MOST_CHANNELS:
                raise UserError(f"{self._path}: {self._channels} channels; at most {_MOST_CHANNELS} can be read")
            self._interleaver = self._interleaver or av.AudioResampler(format=frame.format.packed)
            frame = self._interleaver.resample(frame)[0]
        try:
            samples = frame.to_ndarray()
        except ValueError:
            raise UserError(f"{self._path}: samples of type {frame.format.name} cannot be read") from None
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        if samples.dtype == np.uint8:
            return (samples.astype(np.float32) - 128.0) / 128.0
        if np.issubdtype(samples.dtype, np.integer):
            # Each channel in one piece, which is faster for what comes next.
            scaled = samples.astype(np.float32, order="C")
            scaled *= np.float32(1 / (1 << (8 * samples.dtype.itemsize - 1)))
            return scaled
        with np.errstate(over="ignore"):  # of 64 bits
            floats: Waveform = samples.astype(np.float32, copy=False)
        _refuse_garbage(self._path, floats)
        return floats


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


def _is_one_vorbis(path: Path, stream: AudioStream) -> bool:
    """Whether an Ogg file is Vorbis, and not several songs joined, of which libsndfile reads but the first."""
    if stream.codec_context.name != "vorbis":
        return False
    with path.open("rb") as file:
        head = file.read(_OGG_PAGE_BYTES)
        file.seek(max(0, path.stat().st_size - _OGG_PAGE_BYTES))
        tail = file.read()
    # Every page begins with these letters; its number of the song follows 14 bytes later.
    pages = (head.find(b"OggS"), tail.rfind(b"OggS"))
    first, last = (part[page + 14 : page + 18] for part, page in zip((head, tail), pages, strict=True))
    return min(pages) >= 0 and first == last


def _vorbis_blocks(path: Path, start: int) -> Iterator[Block]:
    """Decode Vorbis with libsndfile: of its end, FFmpeg gives up to 1024 samples too many or too few."""
    try:
        with soundfile.SoundFile(system_name(path)) as file:
            order = np.argsort(VORBIS_ORDER.get(file.channels, range(file.channels)))
            taken = 0
            refuse_late(path, start, file.frames, file.samplerate)
            while len(samples := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                waveform = np.ascontiguousarray(samples.T[order])
                _refuse_garbage(path, waveform)
                late = waveform[:, max(0, start - taken) :]
                taken += len(samples)
                if late.size:
                    yield Block([late], file.samplerate)
            if taken < file.frames:
                raise UserError(f"{path}: damaged, {file.frames - taken} of {file.frames} samples cannot be read")
            if not taken:
                raise UserError(f"{path}: audio stream 0 contains no samples")
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: cannot be read as audio ({error})") from None


class _Decoder:
    """Decodes packets, and counts those that cannot be decoded if they may be left out."""

    def __init__(self, path: Path, *, leave_out: bool) -> None:
        self._path = path
        self._leave_out = leave_out
        self._failed = 0
        self._failed_between = 0
        self.frames = 0

    def decode(self, packet: "Packet[Any]") -> list[AudioFrame]:
        """The frames of a packet."""
        try:
            frames = cast(list[AudioFrame], packet.decode())
        except FFmpegError as error:
            if self._leave_out:
                self._failed += 1
                return []
            if isinstance(error, PatchWelcomeError):
                raise
            raise DamagedSound(f"{self._path}: damaged or cut off ({error.strerror})") from None
        if frames:
            self.frames += len(frames)
            self._failed_between = self._failed
        return frames

    def refuse_noise(self) -> None:
        """Raise `UserError` if most of a file, up to its last frame, was none."""
        if self._failed_between > _MOST_FAILURES * (self.frames + self._failed_between):
            raise DamagedSound(f"{self._path}: damaged, most of it cannot be decoded")


def _packets(
    path: Path, container: InputContainer, chosen: list[AudioStream], *, accept_damaged: bool
) -> "Iterator[Packet[Any]]":
    try:
        yield from container.demux(chosen)
    except PatchWelcomeError:
        raise
    except FFmpegError as error:
        if not accept_damaged:
            raise DamagedSound(f"{path}: damaged or cut off ({error.strerror})") from None


def decode_blocks(
    path: Path, streams: tuple[int, ...] | None = None, *, accept_damaged: bool = False, start: int = 0
) -> Iterator[Block]:
    """Decode the given audio streams of a file, and only them, in one pass, block by block.

    A file of any length needs the memory of a few blocks, if it interleaves its streams. What is wrong with a file may
    show as late as at its end.

    Parameters
    ----------
    path
        Any file of sound that FFmpeg's libraries read.
    streams
        Indices among the file's audio streams, all of one sample rate; blocks hold them in this order. None: the one
        that players take.
    accept_damaged
        Gives what there is of a file that was cut off or is damaged.
    start
        Samples at the beginning that are left out: not read where the format allows that, else decoded and dropped.

    Raises
    ------
    DamagedSound
        If the file was cut off, or a part of it cannot be decoded. What players pass over in mp3 files and their like
        is no damage.
    UserError
        If the file is missing, is not audio, lacks a stream, changes its rate or layout midway, or contains no samples
        (from `start` on), or NaN, infinite or absurd ones.
    """
    with opened(path) as container:
        if not accept_damaged:
            refuse_cut(path)
        available = container.streams.audio
        if streams is None:
            streams = (_default_stream(available),)
        if max(streams) >= len(available):
            raise UserError(f"{path}: has {len(available)} audio streams, stream {max(streams)} is needed")
        chosen = [available[index] for index in streams]
        for stream in chosen:
            _refuse_unknown(path, stream)
        name = container.format.name
        if name == "ogg" and streams == (0,) and not accept_damaged and _is_one_vorbis(path, available[0]):
            yield from _vorbis_blocks(path, start)
            return
        if "mp4" in name.split(",") and not accept_damaged:
            for stream in chosen:
                _refuse_cut_index(path, stream)
        for other in container.streams:
            if other not in chosen:
                other.discard = Discard.all
        position = go_to(container, chosen[0], start) if len(chosen) == 1 and not accept_damaged else 0
        buffers = {stream.index: _StreamBuffer(path, position, start) for stream in chosen}
        decoder = _Decoder(path, leave_out=accept_damaged or name in _BARE_FRAMES)
        for packet in _packets(path, container, chosen, accept_damaged=accept_damaged):
            buffer = buffers[packet.stream.index]
            for frame in decoder.decode(packet):
                buffer.add(frame)
            if buffer.waiting >= BLOCK_SAMPLES and all(each.waiting >= BLOCK_SAMPLES for each in buffers.values()):
                yield _next_block(path, buffers.values())
        if not accept_damaged:
            decoder.refuse_noise()
            if name == "mp3" and decoder.frames < (announced := announced_frames(path)):
                raise DamagedSound(f"{path}: cut off, {announced - decoder.frames} of {announced} frames are missing")
            for stream, buffer in zip(chosen, buffers.values(), strict=True):
                _refuse_cut_stream(path, container, stream, buffer.taken + buffer.waiting)
    for index, buffer in zip(streams, buffers.values(), strict=True):
        if not buffer.taken and not buffer.waiting:
            raise UserError(f"{path}: audio stream {index} contains no samples")
        refuse_late(path, start, buffer.taken + buffer.waiting, buffer.sample_rate)
    while any(buffer.waiting for buffer in buffers.values()):
        yield _next_block(path, buffers.values())


def decode(path: Path) -> tuple[Waveform, int]:
    """The audio of a file: `(channels, samples)` float32 and its sample rate in Hz (see `decode_blocks`)."""
    blocks = list(decode_blocks(path))
    return np.concatenate([block.waveforms[0] for block in blocks], axis=1), blocks[0].sample_rate
