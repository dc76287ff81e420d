"""Audio files out, block by block: wav, flac, mp3 and m4a with PyAV, ogg (Vorbis) with soundfile."""

import contextlib
import errno
import io
import os
import secrets
import struct
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.packet import Packet, PacketSideData

from storage.errors import one_line
from storage.files import free_bytes
from vocsep.arrays import Waveform
from vocsep.audio.formats import FORMATS, VORBIS_ORDER, AudioFormat, BitDepth, BitRate, check_format, layout_of
from vocsep.audio.info import AudioInfo
from vocsep.audio.opening import opened

# What Vorbis takes at its qualities of 0, 0.1, ... 0.9 for stereo at 44.1 kHz (libvorbis: rate_mapping_44_stereo).
_VORBIS_RATES = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_OGG_RATE: BitRate = 256
# What the encoders get at a time: it stays in a core's cache, and libsndfile keeps all of it on its stack.
_BLOCK_SAMPLES = 16_384
_BUFFER_BYTES = 1 << 20
_OGG_TAGS = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "comment": "comment",
    "date": "date",
    "genre": "genre",
    "track": "tracknumber",
    "copyright": "copyright",
}
# Tags about the encoder and the container, not about the song.
_OWN_TAGS = (
    "encoder",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "creation_time",
    "handler_name",
    "vendor_id",
    "language",
    "duration",
    "itunsmpb",
    "itunnorm",
)
# Pictures that every format with a cover takes.
_COVER_CODECS = ("mjpeg", "png")
_MOST_COVER_BYTES = 1 << 24  # as many as FLAC takes


class _Output(io.FileIO):
    """A file that takes all of what it is given, or raises; FFmpeg would not write what is left a second time."""

    def write(self, content: Any) -> int:
        """Write all of some bytes."""
        left = memoryview(content)
        while left:
            left = left[super().write(left) :]
        return len(content)


class _PyavEncoder:
    """Writes with FFmpeg's libraries."""

    def __init__(
        self, path: Path, container: str, bit_depth: BitDepth | None, bit_rate: BitRate | None, like: AudioInfo
    ) -> None:
        kind = FORMATS[container]
        codec = kind.codecs[bit_depth]
        self._position = 0
        self._rate, self._layout = like.sample_rate, layout_of(like, kind)
        # Beyond 4 GB a wav file needs 64-bit sizes, which `auto` writes only then. One tick per sample lets an mp4 file
        # tell the exact length.
        options = {"wav": {"rf64": "auto"}, "m4a": {"movie_timescale": str(like.sample_rate)}}.get(container, {})
        # Opened here, not by FFmpeg, to which some names are addresses, and which keeps files whose beginning fails.
        self._output = _Output(path, "wb")
        self._file = av.open(self._output, "w", format=kind.muxer, options=options, buffer_size=_BUFFER_BYTES)
        try:
            self._file.metadata.update({name: text for name, text in like.tags.items() if name not in _OWN_TAGS})
            chosen = kind.options if bit_rate is None else {"b": f"{bit_rate}k"}
            stream = self._file.add_stream(codec, rate=like.sample_rate, layout=self._layout, options=chosen)
            self._stream = cast(AudioStream, stream)
            # Interleaved; PyAV cannot hand on planes of more than seven channels.
            self._format = {"16": "s16", "24": "s32"}.get(bit_depth or "", "flt")
            self._stream.codec_context.format = av.AudioFormat("fltp" if bit_depth is None else self._format)
            picture = self._add_cover(like.path) if like.has_cover and kind.has_cover else None
            self._file.start_encoding()
            if picture is not None:
                self._file.mux(picture)
        except BaseException:
            self.abandon()
            raise

    def _add_cover(self, path: Path) -> "Packet[Any] | None":
        """Make a stream for the first picture attached to a file; returns the picture."""
        with opened(path) as source:
            for original in source.streams.video:
                codec = original.codec_context
                if not original.disposition & _ATTACHED or codec is None:
                    continue
                # One that FFmpeg cannot see the size of is broken.
                if codec.name in _COVER_CODECS and codec.width and codec.height:
                    picture = next((packet for packet in source.demux(original) if packet.size), None)
                    if picture is not None and picture.size <= _MOST_COVER_BYTES:
                        copied = self._file.add_stream_from_template(original)
                        copied.disposition = _ATTACHED
                        picture.stream = copied
                        return picture
        return None

    def write(self, block: Waveform) -> None:
        """Encode `(channels, samples)`."""
        samples: np.ndarray[Any, Any] = block
        if self._format == "s16":
            samples = _whole(block, 15).astype(np.int16)
        elif self._format == "s32":
            samples = _whole(block, 23).astype(np.int32) << 8
        interleaved = np.stack(tuple(samples), axis=-1).reshape(1, -1)  # four times as fast as copying samples.T
        frame = av.AudioFrame.from_ndarray(interleaved, format=self._format, layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._position
        self._position += block.shape[1]
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Encode what waits, and write the end of the file."""
        packets = self._stream.encode(None)
        if self._file.format.name == "mp3":
            _join_padding(packets)
        self._file.mux(packets)
        self._file.close()
        self._output.close()

    def abandon(self) -> None:
        """Give the file up: its handle, and with it the room on the disk, even if the last write failed."""
        for file in (self._file, self._output):
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                file.close()


def _join_padding(packets: "list[Packet[Any]]") -> None:
    """Put the padding of all packets into the last one: FFmpeg writes only that one's into an mp3 file."""
    padded = [packet for packet in packets if packet.has_sidedata("skip_samples")]
    if not padded or padded[-1] is not packets[-1]:
        return
    # Two 32-bit numbers, of samples to leave out at the start and at the end, and two bytes of reasons.
    contents = [bytearray(packet.get_sidedata("skip_samples")) for packet in padded]
    total = sum(struct.unpack_from("<I", content, 4)[0] for content in contents)
    struct.pack_into("<I", contents[-1], 4, total)
    joined = PacketSideData.from_packet(packets[-1], "skip_samples")
    joined.update(bytes(contents[-1]))
    packets[-1].set_sidedata(joined)


class _OggEncoder:
    """Writes Vorbis with libsndfile: PyAV's wheels come without it."""

    def __init__(self, path: Path, bit_rate: BitRate | None, like: AudioInfo) -> None:
        quality = float(np.interp(bit_rate or _OGG_RATE, _VORBIS_RATES, np.arange(len(_VORBIS_RATES)) / 10))
        # libsndfile would make a file that only its owner may write, despite the user's umask.
        self._output = path.open("wb+")
        self._file = soundfile.SoundFile(
            self._output.fileno(),
            "w",
            like.sample_rate,
            like.channels,
            format="OGG",
            subtype="VORBIS",
            closefd=False,
            compression_level=1 - quality,
        )
        self._path = path
        self._samples = 0
        self._order = list(VORBIS_ORDER.get(like.channels, range(like.channels)))
        for tag, name in _OGG_TAGS.items():
            if like.tags.get(tag):
                setattr(self._file, name, like.tags[tag])

    def write(self, block: Waveform) -> None:
        """Encode `(channels, samples)`."""
        self._file.write(block[self._order].T)
        self._samples += block.shape[1]

    def close(self) -> None:
        """Write the end of the file."""
        self._file.close()
        self._output.close()
        # libsndfile does not say whether there was room for the last page.
        if soundfile.info(self._path).frames != self._samples:
            raise _disk_full()

    def abandon(self) -> None:
        """Give the file up, and its handle."""
        with contextlib.suppress(OSError, soundfile.LibsndfileError):
            self._file.close()
        self._output.close()


def _whole(block: Waveform, bits: int) -> Waveform:
    """Samples times `2**bits`, rounded; what is beyond full scale is cut off. Up to 23 bits, float32 is exact."""
    scale = float(1 << bits)
    with np.errstate(over="ignore"):
        scaled = block * np.float32(scale)
    np.clip(scaled, -scale, scale - 1, out=scaled)
    whole: Waveform = np.rint(scaled, out=scaled)
    return whole


_ATTACHED = av.stream.Disposition.attached_pic


class AudioWriter:
    """An audio file that is written block by block, under a temporary name until it is whole.

    Used in a `with` statement: at its end the file is complete and gets its name; if an error ends it, nothing stays.

    Parameters
    ----------
    path
        Where the file goes; an existing one is replaced.
    container
        Kind of file.
    like
        The file whose rate, channel layout, tags and cover picture this one gets.
    bit_depth
        Of wav (default `32f`) and flac (default `24`).
    beside
        Folder for the unfinished file, on the same disk; None: that of the file itself.
    bit_rate
        Of mp3 (default: the best variable one), m4a and ogg (default 256; variable, about that for stereo at 44.1 kHz),
        in kbit/s.

    Attributes
    ----------
    clipped
        Samples so far that are beyond full scale in a format that cuts them off; 32-bit float holds them.

    Raises
    ------
    UserError
        If the format cannot hold such audio, or the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        container: AudioFormat,
        like: AudioInfo,
        bit_depth: BitDepth | None = None,
        beside: Path | None = None,
        bit_rate: BitRate | None = None,
    ) -> None:
        check_format(path, container, bit_depth, like, bit_rate)
        self.path = path
        self._folder = beside or path.parent
        self.clipped = 0
        self._is_finished = False
        self._container = container
        self._like = like
        self._bit_rate = bit_rate
        self._depth = bit_depth or next(iter(FORMATS[container].codecs))
        self._encoder: _PyavEncoder | _OggEncoder
        self._temporary: Path

    def __enter__(self) -> "AudioWriter":
        with _told(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The encoder makes it: ext4 waits for the disk when a file that was there is closed.
            self._temporary = self._folder / f".{secrets.token_hex(8)}.{self._container}"
            try:
                if FORMATS[self._container].muxer is None:
                    self._encoder = _OggEncoder(self._temporary, self._bit_rate, self._like)
                else:
                    self._encoder = _PyavEncoder(
                        self._temporary, self._container, self._depth, self._bit_rate, self._like
                    )
            except BaseException:
                self._temporary.unlink(missing_ok=True)
                raise
        return self

    def write(self, block: Waveform) -> None:
        """Append `(channels, samples)` float32."""
        if not block.size:
            return
        if self._depth != "32f":
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
        with _told(self.path):
            for start in range(0, block.shape[1], _BLOCK_SAMPLES):
                self._encoder.write(block[:, start : start + _BLOCK_SAMPLES])

    def finish(self) -> None:
        """Write the end of the file, which gets its name at the end of the `with` statement.

        When writing several files, finish all before the first gets its name: only renaming is left then.
        """
        with _told(self.path):
            self._encoder.close()
        self._is_finished = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if not self._is_finished:
                    self.finish()
                with _told(self.path):
                    self._temporary.replace(self.path)
        finally:
            if not self._is_finished:
                self._encoder.abandon()
            self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Any:
    """Turn errors of the system or a library about a file that cannot be written into one line."""
    try:
        yield
    except (FFmpegError, OSError, ValueError, soundfile.LibsndfileError) as error:
        # libsndfile says no more than "System error".
        is_full = isinstance(error, soundfile.LibsndfileError) and free_bytes(path) < _BUFFER_BYTES
        raise one_line(path, "written", _disk_full() if is_full else error) from None


def _disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
