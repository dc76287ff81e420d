from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.vocsep.models.small_models import add_model, music
from tests.vocsep.separation.separated_files import STEMS, refused, separated, write_wav
from vocsep.arrays import Waveform
from vocsep.audio.formats import AudioFormat
from vocsep.audio.reading import audio_info
from vocsep.separation.cache import cached_separator
from vocsep.separation.separator import Separator
from vocsep.separation.settings import Clip, SeparationSettings

# Songs that are hardly any


@pytest.mark.parametrize("samples", [1, 2, 3, 100])
@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "ogg", "m4a"])
def test_song_of_a_few_samples_has_stems_as_long(
    separator: Separator, tmp_path: Path, samples: int, container: AudioFormat
) -> None:
    waveform = np.full((2, samples), 0.5, np.float32)
    path = write_wav(tmp_path / "song.wav", waveform, 44100)
    result, stems = separated(path, tmp_path / "out", separator, format=container)
    for stem, file in result.outputs.items():
        if container == "m4a":
            assert audio_info(file).seconds * 44100 == pytest.approx(samples, abs=1e-3)
        else:
            assert stems[stem].shape == (2, samples)
    if container == "wav":
        np.testing.assert_allclose(stems["vocals"] + stems["accompaniment"], waveform, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip", ["none", "rescale"])
def test_silence_gives_silence(separator: Separator, tmp_path: Path, clip: Clip) -> None:
    path = write_wav(tmp_path / "song.wav", np.zeros((2, 30_000), np.float32), 44100)
    result, stems = separated(path, tmp_path / "out", separator, clip=clip)
    assert result.gain == 1
    for stem in stems.values():
        assert stem.shape == (2, 30_000)
        assert not stem.any()


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros((2, 0), np.float32), "contains no samples"),
        (np.full((2, 100), np.nan, np.float32), "NaN"),
        (np.full((1, 100), -np.inf, np.float32), "NaN or infinite"),
    ],
    ids=["no samples", "NaN", "infinite"],
)
def test_song_that_cannot_be_separated_is_one_line_with_its_name(
    separator: Separator, tmp_path: Path, waveform: Waveform, words: str
) -> None:
    path = write_wav(tmp_path / "song.wav", waveform, 44100)
    message = refused(path, tmp_path / "out", separator)
    assert str(path) in message
    assert words in message


@pytest.mark.parametrize("rate", [1, 100, 999, 1_000_000, 2_000_000_000])
def test_rate_that_is_no_musics_is_one_line(separator: Separator, tmp_path: Path, rate: int) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, np.zeros((100, 2), np.float32), rate, subtype="PCM_16")
    message = refused(path, tmp_path / "out", separator)
    assert str(path) in message
    assert str(rate) in message


@pytest.mark.parametrize("content", [b"", b"not audio at all\n" * 100, b"RIFF\x00\x00\x00\x00WAVE"])
def test_file_that_is_not_audio_is_one_line_that_names_it_and_leaves_nothing(
    separator: Separator, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "words.wav"
    path.write_bytes(content)
    assert str(path) in refused(path, tmp_path / "out", separator)
    assert not (tmp_path / "out").exists()


def test_missing_file_is_one_line_that_names_it(separator: Separator, tmp_path: Path) -> None:
    message = refused(tmp_path / "gone.wav", tmp_path / "out", separator)
    assert str(tmp_path / "gone.wav") in message
    assert "no such file" in message


# Names


def test_song_whose_name_is_any_unicode_keeps_it(separator: Separator, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "Zoë - où {stem} $1 | 歌.live.wav", music(5, 1, 8000, 0.2), 8000)
    result, _ = separated(path, tmp_path / "out", separator)
    assert {output.parent.name for output in result.outputs.values()} == {"Zoë - où {stem} $1 | 歌.live"}


@pytest.mark.parametrize("stem", STEMS)
def test_output_that_would_replace_its_input_is_refused_and_the_input_stays(
    separator: Separator, tmp_path: Path, stem: str
) -> None:
    path = write_wav(tmp_path / stem / f"{stem}.wav", music(6, 1, 8000, 0.2), 8000)
    content = path.read_bytes()
    message = refused(path, tmp_path, separator, overwrite=True)
    assert "replace" in message
    assert str(path) in message
    assert path.read_bytes() == content


# Models


def test_newly_promoted_champion_separates_the_next_file_of_the_same_process(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "song.wav", music(9, 1, 11025), 11025)
    vocals = []
    for seed in (0, 1):
        add_model(tmp_path / "models", seed=seed)
        separator = cached_separator(tmp_path / "models", SeparationSettings(device="cpu"))
        vocals.append(separated(path, tmp_path / f"out{seed}", separator)[1]["vocals"])
    assert np.abs(vocals[0] - vocals[1]).max() > 1e-3
