"""Resampling, and channels made fewer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import UserError
from tests.vocsep.audio.tones import RATE, tones
from vocsep.arrays import Waveform
from vocsep.audio.resampling import Resampler, resample, to_channels


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44100, 11025), (44100, 8192), (48000, 11025), (8000, 44100), (22050, 44100)]
)
@pytest.mark.parametrize("hertz", [100.0, 1000.0, 2999.0])
def test_resampled_sine_is_the_same_sine_at_the_new_rate(from_rate: int, to_rate: int, hertz: float) -> None:
    def sine(rate: int) -> Waveform:
        phase = 2 * np.pi * hertz * np.arange(rate) / rate
        return np.stack([0.5 * np.sin(phase), 0.25 * np.cos(phase)]).astype(np.float32)

    before = sine(from_rate)
    resampled = resample(before, from_rate, to_rate)
    assert resampled.dtype == np.float32
    assert resampled.shape == (2, to_rate)
    # The filter rings at both ends, where the sine begins and stops at once.
    inside = slice(to_rate // 10, -to_rate // 10)
    np.testing.assert_allclose(resampled[:, inside], sine(to_rate)[:, inside], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("from_rate", "to_rate", "hertz"), [(44100, 11025, 6000.0), (44100, 8192, 4600.0)])
def test_tone_above_the_new_band_vanishes(from_rate: int, to_rate: int, hertz: float) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(from_rate) / from_rate).astype(np.float32)[None]
    resampled = resample(tone, from_rate, to_rate)[:, to_rate // 10 : -to_rate // 10]
    assert np.abs(resampled).max() < 1e-4


@settings(max_examples=50, deadline=None)
@given(
    samples=st.integers(1, 30_000),
    from_rate=st.sampled_from([8000, 22050, 44100, 48000]),
    to_rate=st.sampled_from([8000, 8192, 11025, 44100]),
)
def test_length_changes_by_the_ratio_of_the_rates(samples: int, from_rate: int, to_rate: int) -> None:
    resampled = resample(np.ones((1, samples), np.float32), from_rate, to_rate)
    assert abs(resampled.shape[1] - samples * to_rate / from_rate) < 1


def test_equal_rates_change_nothing() -> None:
    signal = tones(0.1)
    assert resample(signal, RATE, RATE) is signal


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=8),
    channels=st.integers(1, 2),
    from_rate=st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    to_rate=st.sampled_from([8192, 11025]),
)
def test_sound_resampled_in_blocks_of_any_sizes_is_that_resampled_whole(
    sizes: list[int], channels: int, from_rate: int, to_rate: int
) -> None:
    signal = np.random.default_rng(0).uniform(-1, 1, (channels, sum(sizes) + 1)).astype(np.float32)
    resampler = Resampler(channels, from_rate, to_rate)
    ends = np.cumsum(sizes).tolist()
    blocks = [resampler.process(signal[:, start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    blocks.append(resampler.process(signal[:, ends[-1] :], last=True))
    joined = np.concatenate(blocks, axis=1)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, resample(signal, from_rate, to_rate))


def test_channels_become_their_mean_or_stay() -> None:
    signal = tones(0.1)
    np.testing.assert_allclose(to_channels(signal, 1), (signal[:1] + signal[1:]) / 2, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(to_channels(signal, 2), signal)
    np.testing.assert_array_equal(to_channels(signal[:1], 2), signal[:1])
    with pytest.raises(UserError, match="3 channels"):
        to_channels(np.zeros((3, 10), np.float32), 2)
