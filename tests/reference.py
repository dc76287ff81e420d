"""musdb and museval, the references of the tests, imported without the program ffmpeg too.

Both import stempeg, which looks for the programs and reads files with them. Without them, a few lines of PyAV replace
it: which songs there are, and what their sources are made of, is still musdb's own doing.
"""

import sys
import types
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

try:
    import stempeg  # noqa: F401
except RuntimeError:

    def _decoded(path: str, stream: int) -> tuple[NDArray[np.float64], int]:
        with av.open(path) as container:
            chosen = container.streams.audio[stream]
            resampler = av.AudioResampler(format="s16", layout="stereo", rate=chosen.rate)
            frames = [made for frame in container.decode(chosen) for made in resampler.resample(frame)]
            frames += resampler.resample(None)
            blocks = [frame.to_ndarray().reshape(-1, 2) for frame in frames]
            return np.concatenate(blocks).astype(np.float64) / 2**15, chosen.rate

    class _Info:
        def __init__(self, path: str) -> None:
            with av.open(path) as container:
                streams = container.streams.audio
                self._streams = [(int(one.rate), float((one.duration or 0) * (one.time_base or 0))) for one in streams]

        def rate(self, stream: int) -> int:
            return self._streams[stream][0]

        def duration(self, stream: int) -> float:
            return self._streams[stream][1]

        def samples(self, stream: int) -> int:
            return round(self.rate(stream) * self.duration(stream))

    def _read_stems(filename: str, stem_id: int | None = None, **options: Any) -> tuple[NDArray[np.float64], int]:
        if stem_id is not None:
            return _decoded(str(filename), stem_id)
        with av.open(str(filename)) as container:
            count = len(container.streams.audio)
        every = [_decoded(str(filename), number) for number in range(count)]
        return np.stack([audio for audio, _ in every]), every[0][1]

    def _write_audio(path: str, data: NDArray[Any], sample_rate: float, **options: Any) -> None:
        soundfile.write(Path(path), data, round(sample_rate))

    stand_in = types.ModuleType("stempeg")
    stand_in.__dict__.update(Info=_Info, read_stems=_read_stems, write_audio=_write_audio)
    sys.modules["stempeg"] = stand_in

import musdb
import museval

__all__ = ["musdb", "museval"]
