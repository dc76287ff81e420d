"""Sound formats: suffixes, codecs, and the rates, depths and channel layouts that each can hold."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from storage.errors import InvalidInput
from vocsep.audio.info import AudioInfo

AudioFormat = Literal["wav", "flac", "mp3", "ogg", "m4a"]
BitDepth = Literal["16", "24", "32f"]
BitRate = Literal[64, 96, 128, 160, 192, 256, 320]
"""In kbit/s."""

# Of sound files, and of videos, whose sound is taken.
_ENDINGS = """
3g2 3ga 3gp aac ac3 aif aifc aiff amr ape asf au avi bwf caf dff dsf dts eac3 ec3 f4a f4v flac flv m2ts m4a m4b m4r m4v
mka mkv mov mp2 mp3 mp4 mpa mpc mpeg mpg mts mxf oga ogg ogv ogx opus qt rf64 shn snd spx tak ts tta vob voc w64 wav
wave weba webm wma wmv wv
"""
AUDIO_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
# A song and its stems in one file, which is named after the song.
STEM_SUFFIX = ".stem.mp4"

# Vorbis has its own order of channels: which of FFmpeg's comes first, second, ...
VORBIS_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 4, 5, 3),
    7: (0, 2, 1, 5, 6, 4, 3),
    8: (0, 2, 1, 6, 7, 4, 5, 3),
}


@dataclass(frozen=True)
class Format:
    """What a kind of file can hold, and how FFmpeg writes it.

    Attributes
    ----------
    muxer, codecs
        FFmpeg's names; one codec per bit depth, the first is the default. None: written by soundfile.
    channels
        Most that it holds.
    rates
        Lowest and highest sample rate in Hz.
    layouts
        FFmpeg's names of the channel layouts that readers find again; empty: any layout.
    options
        Of the codec: variable bit rate of the best quality where there is one.
    has_bit_rate
        Whether one can be chosen.
    """

    muxer: str | None
    codecs: dict[BitDepth | None, str]
    channels: int
    rates: tuple[int, int]
    layouts: tuple[str, ...] = ()
    has_cover: bool = False
    options: dict[str, str] = field(default_factory=dict)
    has_bit_rate: bool = False


# Layout for a number of channels, where a file does not say it: in FLAC and Vorbis always.
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

# Side and back are one to formats that know but one pair behind the listener.
_SAME_LAYOUTS = {"5.0(side)": "5.0", "5.1(side)": "5.1"}

FORMATS: dict[str, Format] = {
    "wav": Format("wav", {"32f": "pcm_f32le", "24": "pcm_s24le", "16": "pcm_s16le"}, 64, (1, 768_000)),
    "flac": Format("flac", {"24": "flac", "16": "flac"}, 8, (1, 655_350), has_cover=True),
    "mp3": Format(
        "mp3",
        {None: "libmp3lame"},
        2,
        (8000, 48_000),
        ("mono", "stereo"),
        has_cover=True,
        options={"flags": "+qscale", "global_quality": "0"},
        has_bit_rate=True,
    ),
    "ogg": Format(None, {None: "vorbis"}, 8, (8000, 192_000), tuple(_USUAL_LAYOUTS.values()), has_bit_rate=True),
    "m4a": Format(
        "mp4",
        {None: "aac"},
        6,
        (7350, 96_000),
        ("mono", "stereo", "2.1", "3.0", "4.0", "quad", "5.0", "5.1"),
        has_cover=True,
        options={"b": "256000"},
        has_bit_rate=True,
    ),
}

# The rates that MPEG audio knows; wav, flac and Vorbis take any.
_MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

_AAC_RATES = (7350, *_MP3_RATES, 64_000, 88_200, 96_000)

_LISTED_RATES = {"mp3": _MP3_RATES, "m4a": _AAC_RATES}


def check_format(
    path: Path, container: str, bit_depth: str | None, like: AudioInfo, bit_rate: int | None = None
) -> None:
    """Raise `UserError` if such a file cannot hold audio of the rate and channels of `like`."""
    kind = FORMATS[container]
    if bit_rate is not None and not kind.has_bit_rate:
        raise InvalidInput(f"{path}: {container} cannot have a bit rate; mp3, ogg and m4a can")
    if bit_depth not in (None, *kind.codecs):
        depths = [depth for depth in kind.codecs if depth is not None]
        choice = f"use {' or '.join(depths)}" if depths else "it has none"
        raise InvalidInput(f"{path}: {container} cannot have bit depth {bit_depth}; {choice}")
    fault = _fault(container, like)
    if fault is not None:
        others = " or ".join(other for other in ("wav", "flac") if _fault(other, like) is None)
        raise InvalidInput(
            f"{path}: {container} {fault}{f'; use {others}' if others else ', and no other format does'}"
        )


def _fault(container: str, like: AudioInfo) -> str | None:
    """Why such a file cannot hold audio of the rate and channels of `like`, or None."""
    kind = FORMATS[container]
    if like.channels > kind.channels:
        return f"holds at most {kind.channels} channels, not {like.channels}"
    if kind.layouts and layout_of(like, kind) not in kind.layouts:
        return f"cannot have the channel layout {like.layout}"
    listed = _LISTED_RATES.get(container)
    if like.sample_rate not in listed if listed else not kind.rates[0] <= like.sample_rate <= kind.rates[1]:
        return f"cannot have a sample rate of {like.sample_rate} Hz"
    return None


def layout_of(like: AudioInfo, kind: Format) -> str:
    """Name of the channel layout that such a file gets."""
    if not kind.layouts:
        return like.layout
    if like.layout == f"{like.channels} channels":
        return _USUAL_LAYOUTS[like.channels]
    return _SAME_LAYOUTS.get(like.layout, like.layout)
