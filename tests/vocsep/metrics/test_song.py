import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vocsep.metrics.song import si_sdr, song_sdr

Array = npt.NDArray[Any]


def orthogonal_pair(seed: int = 0) -> tuple[Array, Array]:
    """Two stereo signals of unit energy without correlation."""
    random = np.random.default_rng(seed)
    signal, noise = random.standard_normal((2, 2, 4000))
    signal /= np.linalg.norm(signal)
    noise -= signal * np.vdot(signal, noise)
    return signal, noise / np.linalg.norm(noise)


@pytest.mark.parametrize("sdr_db", [-12.0, 0.0, 7.5, 30.0])
def test_noise_of_known_energy_gives_that_sdr(sdr_db: float) -> None:
    signal, noise = orthogonal_pair()
    estimate = signal + noise * 10 ** (-sdr_db / 20)
    assert song_sdr(signal, estimate) == pytest.approx(sdr_db, abs=1e-9)
    assert si_sdr(signal, estimate) == pytest.approx(sdr_db, abs=1e-9)


def test_a_wrong_level_costs_song_sdr_but_not_si_sdr() -> None:
    signal, noise = orthogonal_pair()
    estimate = 0.5 * (signal + 0.1 * noise)
    assert si_sdr(signal, estimate) == pytest.approx(20.0, abs=1e-9)
    assert song_sdr(signal, estimate) == pytest.approx(-10 * math.log10(0.25 + 0.0025), abs=1e-9)


def test_perfect_and_silent_cases_have_their_limits() -> None:
    signal, noise = orthogonal_pair()
    silence = np.zeros_like(signal)
    assert song_sdr(signal, signal) == math.inf
    assert song_sdr(signal, silence) == pytest.approx(0.0)
    assert si_sdr(signal, silence) == -math.inf
    assert math.isnan(song_sdr(silence, noise))
    assert math.isnan(si_sdr(silence, noise))
