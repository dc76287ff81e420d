"""Bit rates of lossy files."""

import struct
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from storage.errors import UserError
from vocsep.audio.formats import AudioFormat, BitRate
from vocsep.audio.info import AudioInfo
from vocsep.audio.writing import AudioWriter

SECONDS = 4
INFO = AudioInfo(Path("song.wav"), 44_100, "stereo", ("FL", "FR"))


def save(path: Path, container: AudioFormat, bit_rate: BitRate | None) -> Path:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, SECONDS * 44_100)).astype(np.float32)
    with AudioWriter(path, container, INFO, bit_rate=bit_rate) as writer:
        writer.write(noise)
    return path


@pytest.mark.parametrize("bit_rate", [128, 320])
@pytest.mark.parametrize("container", ["mp3", "m4a"])
def test_file_has_the_size_that_its_bit_rate_makes(tmp_path: Path, container: AudioFormat, bit_rate: BitRate) -> None:
    size = save(tmp_path / "a", container, bit_rate).stat().st_size
    assert size * 8 / SECONDS == pytest.approx(1000 * bit_rate, rel=0.05)


@pytest.mark.parametrize("bit_rate", [None, *get_args(BitRate)])
def test_vorbis_file_says_the_bit_rate_that_was_asked_for(tmp_path: Path, bit_rate: BitRate | None) -> None:
    """What libvorbis itself expects to take, from the identification header (Vorbis I, 4.2.2)."""
    content = save(tmp_path / "a.ogg", "ogg", bit_rate).read_bytes()
    _, channels, rate, _, nominal, _ = struct.unpack_from("<IBIiii", content, content.index(b"\x01vorbis") + 7)
    assert (channels, rate) == (2, 44_100)
    assert nominal == pytest.approx(1000 * (bit_rate or 256), rel=0.01)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_format_without_one_refuses_it_with_advice(tmp_path: Path, container: AudioFormat) -> None:
    with pytest.raises(UserError, match=f"{container} cannot have a bit rate; mp3, ogg and m4a can"):
        save(tmp_path / "a", container, 192)
    assert list(tmp_path.iterdir()) == []
