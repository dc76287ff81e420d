"""Real audio files of every kind, with tags and pictures, for tests."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream

from vocsep.arrays import Waveform

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
TAGS = {"title": "Où est {le} chat", "artist": "Zoë", "album": "歌", "date": "1999", "genre": "Test", "track": "3"}

# Kind of file: FFmpeg's encoder and sample format; None: by soundfile.
KINDS: dict[str, tuple[str, str] | None] = {
    "wav": ("pcm_s16le", "s16"),
    "aiff": ("pcm_s16be", "s16"),
    "flac": ("flac", "s16"),
    "mp3": ("libmp3lame", "fltp"),
    "m4a": ("aac", "fltp"),
    "ogg": None,
    "opus": ("libopus", "flt"),
    "mkv": ("aac", "fltp"),
    "mp4": ("aac", "fltp"),
}


def write_song(
    path: Path,
    waveform: Waveform,
    sample_rate: int,
    *,
    tags: dict[str, str] | None = None,
    cover: bool = False,
    video: bool = False,
) -> Path:
    """A file of the kind that its ending tells, with tags, a picture or a film of a few frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = KINDS[path.suffix[1:]]
    if kind is None:
        soundfile.write(path, waveform.T, sample_rate, format="OGG", subtype="VORBIS")
        return path
    codec, sample_format = kind
    layout = LAYOUTS[len(waveform)]
    options = {"movie_timescale": str(sample_rate)} if path.suffix in (".m4a", ".mp4") else {}
    container = "mp4" if path.suffix == ".m4a" else None  # which holds pictures
    with av.open(str(path), "w", format=container, options=options) as file:
        file.metadata.update(tags or {})
        sound = file.add_stream(codec, rate=sample_rate, layout=layout)
        assert isinstance(sound, AudioStream)
        film = file.add_stream("mpeg4", rate=25) if video else None
        if film:
            film.width, film.height, film.pix_fmt = 32, 32, "yuv420p"
        picture = file.add_stream("png", rate=1) if cover else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 16, 16, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
        file.start_encoding()
        for stream in (film, picture):
            if stream:
                pixels = np.random.default_rng(5).integers(0, 255, (stream.height, stream.width, 3), dtype=np.uint8)
                still = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                still.pts = 0
                file.mux(stream.encode(still))
                file.mux(stream.encode(None))
        samples = waveform
        if sample_format == "s16":
            samples = (waveform * 32767).round().astype(np.int16)
        if not sample_format.endswith("p"):
            samples = samples.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=sample_format, layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
        file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    return path


# Kinds of files that tell how long they are: FFmpeg's container, codec, sample format and options.
WHOLE_KINDS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "wav": ("wav", "pcm_s16le", "s16", {}),
    "rf64": ("wav", "pcm_s16le", "s16", {"rf64": "always"}),
    "w64": ("w64", "pcm_s16le", "s16", {}),
    "au": ("au", "pcm_s16be", "s16", {}),
    "caf": ("caf", "pcm_s16le", "s16", {}),
    "aiff": ("aiff", "pcm_s16be", "s16", {}),
    "aifc": ("aiff", "pcm_mulaw", "s16", {}),
    "avi": ("avi", "pcm_s16le", "s16", {}),
    "flac": ("flac", "flac", "s16", {}),
    "tta": ("tta", "tta", "s16", {}),
    "wv": ("wv", "wavpack", "s16p", {}),
    "mp3": ("mp3", "libmp3lame", "fltp", {}),
    "wav.mp3": ("wav", "libmp3lame", "fltp", {}),
    "opus": ("ogg", "libopus", "flt", {}),
    "oga": ("ogg", "flac", "s16", {}),
    "webm": ("webm", "libopus", "flt", {}),
    "mka": ("matroska", "flac", "s16", {}),
    "m4a": ("mp4", "aac", "fltp", {}),
    "fast.m4a": ("mp4", "aac", "fltp", {"movflags": "faststart"}),
    "parts.m4a": ("mp4", "aac", "fltp", {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "pcm_s16le", "s16", {}),
    "rm": ("rm", "ac3", "fltp", {}),
    "voc": ("voc", "pcm_s16le", "s16", {}),
    "flv": ("flv", "aac", "fltp", {}),
    "sox": ("sox", "pcm_s32le", "s32", {}),
    "mxf": ("mxf_opatom", "pcm_s16le", "s16", {}),
}


# Kinds that cannot: nothing but frames.
BARE_KINDS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "aac": ("adts", "aac", "fltp", {}),
    "mp2": ("mp2", "mp2", "s16", {}),
    "ac3": ("ac3", "ac3", "fltp", {}),
}


def write_kind(path: Path, kind: str, waveform: Waveform, rate: int) -> bytes:
    """A sound as a file of a kind; returns its bytes."""
    container, codec, sample_format, options = (WHOLE_KINDS | BARE_KINDS)[kind]
    rate = {"flv": 44100, "mxf": 48000}.get(kind, rate)
    if kind == "mxf":
        waveform = waveform[:1]
    with av.open(str(path), "w", format=container, options=options) as file:
        layout = LAYOUTS[len(waveform)]
        stream = file.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        samples: Any = waveform
        if sample_format.startswith("s"):
            samples = (waveform * 32767).astype(np.int16)
        if sample_format == "s32":
            samples = samples.astype(np.int32) << 16
        if not sample_format.endswith("p"):
            samples = samples.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=sample_format, layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path.read_bytes()


def write_film(path: Path) -> Path:
    """A film of one picture, without sound."""
    with av.open(str(path), "w") as file:
        film = file.add_stream("mpeg4", rate=25)
        film.width, film.height, film.pix_fmt = 32, 32, "yuv420p"
        file.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        file.mux(film.encode(None))
    return path


def cover_of(path: Path) -> bytes | None:
    """Bytes of the picture attached to a file."""
    with av.open(str(path)) as file:
        for stream in file.streams.video:
            if stream.disposition & av.stream.Disposition.attached_pic:
                return next(bytes(packet) for packet in file.demux(stream) if packet.size)
    return None


def tags_of(path: Path) -> dict[str, str]:
    """Tags as FFmpeg reads them, names in small letters."""
    with av.open(str(path)) as file:
        found = dict(file.metadata)
        for stream in file.streams.audio:
            found |= stream.metadata
    return {name.lower(): text for name, text in found.items()}
