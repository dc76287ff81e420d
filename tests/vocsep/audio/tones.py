"""Tones in files of any format, and how they come back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from tests.helpers import one_line
from tests.vocsep.audio.audio_files import LAYOUTS
from vocsep.arrays import Waveform
from vocsep.audio.reading import decode, decode_blocks

RATE = 44100


def tones(seconds: float, rate: int = RATE, channels: int = 2, first: float = 330.0) -> Waveform:
    """Another pair of tones in each channel, each rising and falling once."""
    time = np.arange(round(seconds * rate)) / rate
    swell = np.sin(np.pi * time / seconds)
    return np.stack(
        [
            swell * (0.4 * np.sin(2 * np.pi * first * (n + 1) * time) + 0.2 * np.sin(2 * np.pi * 517 * time))
            for n in range(channels)
        ]
    ).astype(np.float32)


def write(
    path: Path,
    signals: list[NDArray[Any]],
    codec: str,
    sample_format: str = "fltp",
    rate: int = RATE,
    bit_rate: int | None = None,
    container: str | None = None,
) -> None:
    """Write each signal as one audio stream with PyAV, as planar or packed frames of `sample_format`."""
    # One tick per sample, so that an mp4's edit list can tell the exact length.
    options = {"movie_timescale": str(rate)} if path.suffix in (".m4a", ".mp4") else {}
    with av.open(str(path), "w", format=container, options=options) as file:
        streams = []
        for signal in signals:
            stream = file.add_stream(codec, rate=rate, layout=LAYOUTS[len(signal)])
            assert isinstance(stream, AudioStream)
            if bit_rate is not None:
                stream.bit_rate = bit_rate
            streams.append(stream)
        block = 4096
        for start in range(0, max(signal.shape[1] for signal in signals), block):
            for stream, signal in zip(streams, signals, strict=True):
                part = signal[:, start : start + block]
                if part.shape[1] == 0:
                    continue
                if not sample_format.endswith("p"):
                    part = part.T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(part), format=sample_format, layout=LAYOUTS[len(signal)]
                )
                frame.sample_rate = rate
                frame.pts = start
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))


def decode_streams(path: Path, streams: tuple[int, ...]) -> tuple[list[Waveform], int]:
    blocks = list(decode_blocks(path, streams))
    waveforms = [np.concatenate([block.waveforms[n] for block in blocks], axis=1) for n in range(len(streams))]
    return waveforms, blocks[0].sample_rate


def assert_refused(path: Path, action: Callable[[], object] | None = None) -> str:
    return one_line(action or (lambda: decode(path)), path)


def five_streams(path: Path) -> list[NDArray[Any]]:
    signals = [tones(0.3, first=200.0 * (number + 1)) for number in range(5)]
    write(path, [(signal * 32767).astype(np.int16) for signal in signals], "flac", "s16")
    return [(signal * 32767).astype(np.int16) / np.float32(32768) for signal in signals]
