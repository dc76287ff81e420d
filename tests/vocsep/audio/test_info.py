from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.errors import UserError
from tests.helpers import one_line
from tests.vocsep.audio.audio_files import KINDS, TAGS, write_film, write_song
from tests.vocsep.models.small_models import music
from vocsep.audio.reading import audio_info, decode

KINDS_WITH_TAGS = ("flac", "mp3", "m4a", "mkv")


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_info_is_what_decoding_gives(tmp_path: Path, kind: str, channels: int) -> None:
    if kind == "mp3" and channels == 6:
        pytest.skip("mp3 is mono or stereo")
    rate = 48000 if kind == "opus" else 22050
    path = write_song(tmp_path / f"a.{kind}", music(1, channels, rate), rate, video=kind in ("mkv", "mp4"))
    info = audio_info(path)
    waveform, decoded_rate = decode(path)
    assert (info.channels, info.sample_rate) == (len(waveform), decoded_rate)
    assert info.layout.removesuffix("(side)") == {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    assert info.channel_names[:2] == (("FC",) if channels == 1 else ("FL", "FR"))
    # Opus counts what its decoder throws away; Matroska and AAC a frame more or less.
    assert info.seconds == pytest.approx(0.7, abs=0.06)
    assert not info.has_cover


@pytest.mark.parametrize("kind", KINDS_WITH_TAGS)
@pytest.mark.parametrize("cover", [False, True])
def test_tags_and_cover_are_told(tmp_path: Path, kind: str, cover: bool) -> None:
    if kind == "mkv" and cover:
        pytest.skip("Matroska holds pictures as attachments")
    path = write_song(tmp_path / f"a.{kind}", music(1, 2, 22050, 0.2), 22050, tags=TAGS, cover=cover)
    info = audio_info(path)
    assert info.has_cover == cover
    assert {name: info.tags.get(name) for name in TAGS} == TAGS


def test_film_is_no_cover(tmp_path: Path) -> None:
    path = write_song(tmp_path / "a.mp4", music(1, 2, 22050, 0.2), 22050, video=True)
    assert not audio_info(path).has_cover


def test_tags_that_are_not_utf_8_are_read_all_the_same(tmp_path: Path) -> None:
    path = write_song(tmp_path / "a.flac", music(1, 2, 22050, 0.2), 22050, tags={"title": "abcdef"})
    content = path.read_bytes()
    assert b"abcdef" in content
    path.write_bytes(content.replace(b"abcdef", b"ab\xff\xfeef"))
    assert audio_info(path).tags["title"].startswith("ab")


@pytest.mark.parametrize(("channels", "layout"), [(1, "mono"), (2, "stereo"), (3, "3 channels"), (7, "7 channels")])
def test_channels_that_a_wav_file_does_not_name_are_left_and_right_or_have_no_name(
    tmp_path: Path, channels: int, layout: str
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((100, channels), np.float32), 8000, subtype="FLOAT")
    assert audio_info(path).layout == layout
    assert audio_info(path).channels == channels


@pytest.mark.parametrize("content", [b"", b"no audio\n" * 99])
def test_file_that_is_no_audio_is_one_line_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    one_line(lambda: audio_info(path), path)


def test_missing_file_and_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        audio_info(tmp_path / "a.wav")
    with pytest.raises(UserError, match="cannot be read"):
        audio_info(tmp_path)


def test_film_without_sound_is_one_line(tmp_path: Path) -> None:
    path = write_film(tmp_path / "clip.mp4")
    one_line(lambda: audio_info(path), path, "no sound")
