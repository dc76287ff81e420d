"""The page next to the stems: one file, with everything in it, in step."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.vocsep.evaluation.report_pages import assert_self_contained, parsed_page, played
from tests.vocsep.models.small_models import music
from tests.vocsep.separation.separated_files import files_in, write_wav
from vocsep.arrays import Waveform
from vocsep.separation import listening
from vocsep.separation.files import separate_file
from vocsep.separation.separator import Separator
from vocsep.separation.settings import SeparationSettings

RATE = 22_050
NAMES = ("mixture", "vocals", "accompaniment")


def loudness(waveform: Waveform) -> float:
    return float(np.square(waveform).mean())


def test_page_plays_mixture_and_stems_and_needs_nothing_else(separator: Separator, tmp_path: Path) -> None:
    # Low tones, which mp3 keeps.
    tone = 0.3 * np.sin(2 * np.pi * 330 * np.arange(3 * RATE) / RATE) * np.linspace(0, 1, 3 * RATE)
    waveform = np.stack([tone, 0.5 * tone]).astype(np.float32)
    path = write_wav(tmp_path / "<script>&amp;.wav", waveform, RATE)
    for name, place in (("{track}/{stem}", f"{path.stem}/listen.html"), ("{stem}/{track}", f"listen/{path.stem}.html")):
        output = tmp_path / name[1:3]
        settings = SeparationSettings(page=True, name=name)
        result = separate_file(path, output, separator, settings)
        assert result.page == output / place
        assert files_in(output) == sorted([output / place, *result.outputs.values()])
        assert not separate_file(path, output, separator, settings).is_new
        page = parsed_page(output / place)
        assert_self_contained(page)
        assert path.name in page.text
        (player,) = page.players
        assert [track["name"] for track in player["tracks"]] == list(NAMES)
        assert player["frames"] == pytest.approx(3 * player["sampleRate"], abs=2)
        expected = [waveform, *(soundfile.read(result.outputs[stem])[0].T for stem in NAMES[1:])]
        for stem, whole in zip(NAMES, expected, strict=True):
            # At twice the rate: every other sample is one of the stem's.
            sound = played(player, stem)[:, ::2][:, : whole.shape[1]]
            assert loudness(sound - whole[:, : sound.shape[1]]) < 0.02 * loudness(waveform)
        (output / place).unlink()
        assert separate_file(path, output, separator, settings).is_new


def test_page_holds_the_beginning_of_a_long_song(
    separator: Separator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MOST_MINUTES", 1 / 60)
    path = write_wav(tmp_path / "long.wav", music(5, 1, RATE, 2.5), RATE)
    result = separate_file(path, tmp_path / "out", separator, SeparationSettings(page=True, stems=("vocals",)))
    assert result.page is not None
    page = parsed_page(result.page)
    (player,) = page.players
    assert player["frames"] == 44_100
    assert "The first" in page.text
    assert soundfile.info(result.outputs["vocals"]).frames == round(2.5 * RATE)


def test_page_of_many_channels_and_of_a_short_song_is_made_all_the_same(separator: Separator, tmp_path: Path) -> None:
    for channels, samples in ((6, 4000), (1, 1), (1, 700)):
        path = write_wav(tmp_path / f"{channels}-{samples}.wav", np.full((channels, samples), 0.1, np.float32), RATE)
        result = separate_file(path, tmp_path / "out", separator, SeparationSettings(page=True))
        assert result.page is not None
        (player,) = parsed_page(result.page).players
        assert played(player, "mixture").shape == (min(2, channels), player["frames"])
