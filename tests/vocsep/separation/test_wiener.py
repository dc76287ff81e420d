from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vocsep.separation.wiener import wiener

Array = NDArray[Any]


def noise(seed: int, *shape: int) -> Array:
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)


def by_definition(x: Array, y: Array) -> Array:
    """The filter frame by frame and bin by bin, as the papers write it."""
    x, y = x.astype(complex), y.astype(complex)
    channels, frames, bins = x.shape
    power = [np.zeros((frames, bins)), np.zeros((frames, bins))]
    space = [np.zeros((bins, channels, channels), complex), np.zeros((bins, channels, channels), complex)]
    for j, source in enumerate([y, x - y]):
        for f in range(bins):
            outer = np.zeros((channels, channels), complex)
            for t in range(frames):
                vector = source[:, t, f]
                power[j][t, f] = np.mean(np.abs(vector) ** 2)
                outer += np.outer(vector, vector.conj())
            space[j][f] = outer / power[j][:, f].sum()
    refined = np.zeros_like(y)
    for t in range(frames):
        for f in range(bins):
            total = power[0][t, f] * space[0][f] + power[1][t, f] * space[1][f]
            refined[:, t, f] = power[0][t, f] * space[0][f] @ np.linalg.solve(total, x[:, t, f])
    return refined


@pytest.mark.parametrize("channels", [1, 2])
def test_filter_is_the_one_of_the_papers(channels: int) -> None:
    vocals, accompaniment = noise(0, channels, 12, 5), 0.5 * noise(1, channels, 12, 5)
    mixture: Array = vocals + accompaniment
    rough: Array = 0.7 * vocals + 0.2 * accompaniment
    refined = wiener(mixture, rough, [tuple(range(channels))])
    assert refined.dtype == np.complex64
    expected = by_definition(mixture, rough)
    assert np.abs(expected - rough).max() > 0.1
    np.testing.assert_allclose(refined, expected, rtol=0, atol=1e-4)


def test_in_mono_it_is_the_ratio_of_the_powers() -> None:
    vocals, accompaniment = noise(0, 1, 9, 7), noise(1, 1, 9, 7)
    mixture = vocals + accompaniment
    share = np.abs(vocals) ** 2 / (np.abs(vocals) ** 2 + np.abs(accompaniment) ** 2)
    np.testing.assert_allclose(wiener(mixture, vocals, [(0,)]), share * mixture, rtol=0, atol=1e-4)


def test_sources_from_two_places_are_told_apart_by_them() -> None:
    # The voice is in the middle, the band on the left: a mask of the magnitudes mixes them, their places do not.
    voice, band = noise(0, 1, 200, 3), noise(1, 1, 200, 3)
    vocals = np.concatenate([voice, voice])
    mixture = vocals + np.concatenate([band, 0.1 * band])
    rough = 0.8 * vocals + 0.3 * (mixture - vocals)
    refined = rough
    for _ in range(5):
        refined = wiener(mixture, refined, [(0, 1)])
    assert np.mean(np.abs(refined - vocals) ** 2) < 0.1 * np.mean(np.abs(rough - vocals) ** 2)


def test_every_group_has_a_model_of_its_own() -> None:
    mixture, rough = noise(0, 4, 10, 4), noise(1, 4, 10, 4)
    together = wiener(mixture, rough, [(0, 3), (1,), (2,)])
    for group in ([0, 3], [1], [2]):
        alone = wiener(mixture[group], rough[group], [tuple(range(len(group)))])
        np.testing.assert_allclose(together[group], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_and_the_same_sound_in_both_channels_stay_finite(channels: int) -> None:
    group = [tuple(range(channels))]
    silence = np.zeros((channels, 6, 4), np.complex64)
    np.testing.assert_array_equal(wiener(silence, silence, group), 0)
    same = np.repeat(noise(0, 1, 6, 4), channels, axis=0)
    roughs: list[Array] = [same, silence, 0.5 * same]
    for rough in roughs:
        refined = wiener(same, wiener(same, rough, group), group)
        assert np.isfinite(refined).all()
        # All of the mixture, nothing, or half of it.
        np.testing.assert_allclose(refined, rough, rtol=0, atol=1e-3)
