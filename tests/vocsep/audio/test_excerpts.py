"""Decoding from the middle of a file on: what comes is what the whole file has there, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.errors import UserError
from tests.helpers import one_line
from tests.vocsep.audio.audio_files import write_song
from vocsep.arrays import Waveform
from vocsep.audio.damage import DamagedSound
from vocsep.audio.reading import BLOCK_SAMPLES, decode, decode_blocks

SAMPLES = 90_000
# By soundfile: format and subtype.
OTHERS = {
    "float.wav": ("WAV", "FLOAT"),
    "24.wav": ("WAV", "PCM_24"),
    "big.wav": ("RF64", "PCM_16"),
    "adpcm.wav": ("WAV", "MS_ADPCM"),
    "a.w64": ("W64", "PCM_16"),
    "a.au": ("AU", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "large-frames.flac": ("FLAC", "PCM_24"),
}
KINDS = ["a.wav", "a.aiff", "a.flac", "a.mp3", "a.m4a", "a.mkv", "a.ogg", "a.opus", *OTHERS]


def noise(samples: int = SAMPLES) -> Waveform:
    return (0.2 * np.random.default_rng(0).standard_normal((2, samples))).clip(-1, 1).astype(np.float32)


def write(path: Path, waveform: Waveform) -> Path:
    rate = 48_000 if path.suffix == ".opus" else 44_100
    if path.name not in OTHERS:
        return write_song(path, waveform, rate)
    kind, subtype = OTHERS[path.name]
    soundfile.write(path, waveform.T, rate, format=kind, subtype=subtype)
    return path


def decoded(path: Path, start: int, *, accept_damaged: bool = False) -> Waveform:
    blocks = decode_blocks(path, start=start, accept_damaged=accept_damaged)
    return np.concatenate([block.waveforms[0] for block in blocks], axis=1)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_decoded_from_any_sample_on_is_what_the_whole_file_has_there(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise())
    whole, rate = decode(path)
    last = whole.shape[1] - 1
    for start in (0, 1, 4608, BLOCK_SAMPLES + 1, last):
        np.testing.assert_array_equal(decoded(path, start), whole[:, start:])
    if name != "a.ogg":  # decoded by FFmpeg then
        np.testing.assert_array_equal(decoded(path, 70_000, accept_damaged=True), whole[:, 70_000:])
    for start in (last + 1, last + 10 * rate):
        message = one_line(lambda start=start: decoded(path, start), path)  # type: ignore[misc]
        assert f"is {whole.shape[1] / rate:.1f} s long" in message


def test_of_wav_and_flac_nothing_is_read_before_the_excerpt(tmp_path: Path) -> None:
    """Its beginning could not be: it contains NaN, or is damaged."""
    waveform = noise()
    waveform[:, 100] = np.nan
    path = tmp_path / "a.wav"
    soundfile.write(path, waveform.T, 44_100, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        decode(path)
    np.testing.assert_array_equal(decoded(path, 101), waveform[:, 101:])

    path = write(tmp_path / "large-frames.flac", noise(300_000))
    whole, _ = decode(path)
    content = bytearray(path.read_bytes())
    content[10_000:10_400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DamagedSound):
        decode(path)
    np.testing.assert_array_equal(decoded(path, 200_000), whole[:, 200_000:])
