"""Pitch and tempo: magnitudes stretched along both axes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from tests.vocsep.patches.makers import WAYS, Array, one
from vocsep.patches.maker import stretch

magnitudes = numpy_strategies.arrays(
    np.float32,
    st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 20)),
    elements=st.floats(0, 1000, width=32),
)


@settings(deadline=None)
@given(spectrogram=magnitudes)
def test_stretch_by_nothing_changes_nothing(spectrogram: Array) -> None:
    values = torch.from_numpy(spectrogram)
    frames = values.shape[1]
    assert torch.equal(one("by_rows", frames, frames, 1.0, values), values)
    # Neighbours weigh in by no more than the rounding of places.
    together = one("together", frames, frames, 1.0, values)
    torch.testing.assert_close(together, values, rtol=1e-5, atol=1e-5 * float(values.max()) + 1e-6)


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=200)
@given(spectrogram=magnitudes, out_frames=st.integers(1, 20), semitones=st.floats(-12, 12))
def test_stretched_magnitudes_are_never_negative_nor_louder_than_the_loudest(
    way: str, spectrogram: Array, out_frames: int, semitones: float
) -> None:
    values = torch.from_numpy(spectrogram)
    stretched = one(way, values.shape[1], out_frames, 2 ** (semitones / 12), values)
    assert (stretched >= 0).all()
    assert stretched.max() <= values.max() * (1 + 1e-5)


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None)
@given(
    bins=st.integers(8, 200),
    frames=st.integers(1, 20),
    out_frames=st.integers(1, 20),
    semitones=st.floats(-12, 12),
    level=st.floats(0.01, 100),
)
def test_level_of_a_flat_spectrum_is_kept_and_above_what_is_known_there_is_silence(
    way: str, bins: int, frames: int, out_frames: int, semitones: float, level: float
) -> None:
    pitch = float(np.float32(2 ** (semitones / 12)))
    stretched = one(way, frames, out_frames, pitch, torch.full((1, frames, bins), level))
    known = bins if pitch >= 1 else round(bins * pitch)
    torch.testing.assert_close(stretched[..., :known], torch.full_like(stretched[..., :known], level))
    assert not stretched[..., known:].any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("line", [20, 61, 150, 237])
@pytest.mark.parametrize("semitones", [-12, -3, -0.5, 0.5, 2, 3, 7, 12])
def test_pure_tone_moves_to_its_frequency_times_the_pitch_and_keeps_its_time(
    way: str, line: int, semitones: float
) -> None:
    pitch = 2 ** (semitones / 12)
    tone = torch.zeros(1, 9, 512)
    tone[..., line - 2 : line + 3] = torch.tensor([0.25, 0.75, 1, 0.75, 0.25])
    tone *= torch.tensor([0.0, 0, 1, 1, 1, 0, 0, 0.5, 0])[:, None]
    stretched = one(way, 9, 9, pitch, tone)
    bins = torch.arange(512) + 0.5
    center = (stretched * bins).sum(-1)[0] / stretched.sum(-1)[0]
    for frame in (2, 3, 4, 7):
        assert abs(float(center[frame]) - (line + 0.5) * pitch) < 0.6
        assert float(stretched[0, frame].max()) == pytest.approx(float(tone[0, frame].max()), rel=0.15)
    # The other places are rounded, together.
    assert stretched[0, [0, 1, 5, 6, 8]].max() <= (0 if way == "by_rows" else 1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("frames", "factor"), [(256, 0.5), (64, 2.0), (154, 128 / 154), (107, 128 / 107)])
def test_tempo_changes_the_distance_of_two_events_and_not_their_bins(way: str, frames: int, factor: float) -> None:
    first, second = frames // 4, frames // 4 + frames // 2
    events = torch.zeros(1, frames, 32)
    events[0, first - 1 : first + 2, 7] = events[0, second - 1 : second + 2, 21] = torch.tensor([0.5, 1, 0.5])
    stretched = one(way, frames, 128, 1.0, events)[0]
    places = torch.arange(128) + 0.5
    found = [float((stretched[:, event] * places).sum() / stretched[:, event].sum()) for event in (7, 21)]
    assert found[0] == pytest.approx((first + 0.5) * factor, abs=0.6)
    assert found[1] - found[0] == pytest.approx((second - first) * factor, abs=0.8)
    stretched[:, [7, 21]] = 0
    assert not stretched.any()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    frames=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    out_frames=st.integers(1, 24),
    bins=st.integers(4, 40),
    semitones=st.lists(st.floats(-12, 12), min_size=4, max_size=4),
)
def test_items_stretched_together_are_those_stretched_row_by_row(
    seed: int, frames: list[int], out_frames: int, bins: int, semitones: list[float]
) -> None:
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.random((len(frames), 2, max(frames), bins), dtype=np.float32))
    pitch = np.array([1.0, *(2 ** (value / 12) for value in semitones)][: len(frames)], dtype=np.float32)
    together = torch.full((len(frames), 2, out_frames, bins), np.nan)
    stretch(values, pitch, np.array(frames), together)
    for item in range(len(frames)):
        alone = one("by_rows", frames[item], out_frames, float(pitch[item]), values[item])
        torch.testing.assert_close(together[item], alone, rtol=0, atol=1e-4)
