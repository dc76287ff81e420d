"""Pieces of mp3 that join without a seam, however the sound came in."""

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vocsep.evaluation.report_pages import played
from tests.vocsep.models.small_models import music
from vocsep.arrays import Waveform
from vocsep.html.sounds import PIECE_SECONDS, Mp3Pieces, in_stereo


def tones(channels: int, seconds: float) -> Waveform:
    """Tones that come and go, other ones in each channel."""
    time = np.arange(round(seconds * 44100)) / 44100
    rows = [
        sum(np.sin(2 * np.pi * hertz * (1 + 0.3 * channel) * time) for hertz in (110, 440, 1270, 3300))
        * (0.12 + 0.08 * np.sin(2 * np.pi * 1.3 * time))
        for channel in range(channels)
    ]
    return np.array(rows, np.float32)


def pieces_of(waveform: Waveform, sample_rate: int, cuts: list[int]) -> Mp3Pieces:
    pieces = Mp3Pieces(len(waveform), sample_rate)
    for block in np.split(waveform, sorted(cuts), axis=1):
        pieces.write(block)
    pieces.finish()
    return pieces


def joined(pieces: Mp3Pieces) -> Waveform:
    track = {"name": "it", "pieces": [base64.b64encode(piece).decode() for piece in pieces.pieces]}
    facts = {"frames": pieces.frames, "channels": pieces.channels, "sampleRate": pieces.rate, "margin": pieces.margin}
    return played({**facts, "pieceSeconds": PIECE_SECONDS, "tracks": [track]}, "it")


@pytest.mark.parametrize("seconds", [0.5, 12.0, 12.03, 25.0])
def test_pieces_join_to_the_sound_without_a_seam(seconds: float) -> None:
    waveform = tones(2, seconds)
    pieces = pieces_of(waveform, 44100, [1000, 1000, 300_000])
    found = joined(pieces)
    assert len(pieces.pieces) == int(np.ceil(seconds / PIECE_SECONDS))
    assert found.shape == waveform.shape
    error = np.square(found - waveform)
    assert error.mean() < 0.01 * np.square(waveform).mean()
    border = PIECE_SECONDS * 44100
    if waveform.shape[1] > border + 2000:  # at a border it is as good as elsewhere
        assert error[:, border - 500 : border + 500].mean() < 5 * error.mean()


def test_other_rates_and_many_channels_become_what_browsers_play() -> None:
    pieces = pieces_of(0.2 * music(2, 6, 96_000, 1.0), 96_000, [5000])
    assert (pieces.rate, pieces.channels) == (44_100, 2)
    assert joined(pieces).shape == (2, pieces.frames)
    assert pieces.frames == pytest.approx(44_100, abs=2)
    assert pieces_of(music(2, 1, 8000, 0.2), 8000, []).channels == 1
    six = np.arange(6, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(in_stereo(six), [[0 + 7], [1 + 7]])
    np.testing.assert_array_equal(in_stereo(six[:2]), six[:2])


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 30_000), max_size=5))
def test_blocks_of_any_size_give_the_same_pieces(cuts: list[int]) -> None:
    waveform = 0.5 * music(3, 1, 32_000, 30_000 / 32_000)
    assert pieces_of(waveform, 32_000, cuts).pieces == pieces_of(waveform, 32_000, []).pieces


def test_nothing_gives_no_piece_and_what_is_beyond_full_scale_is_cut_off() -> None:
    assert pieces_of(np.zeros((1, 0), np.float32), 44100, []).pieces == []
    loud = pieces_of(np.full((1, 20_000), 3.0, np.float32), 44100, [])
    assert loud.peaks.columns()[0] == [1000, 1000]
    assert np.abs(joined(loud)[:, 5000:15_000]).mean() == pytest.approx(1.0, abs=0.1)
