"""Songs of a few seconds: museval's arithmetic, and so its values, to far below a thousandth of a dB."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.reference import museval
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.metrics import bsseval_short
from vocsep.metrics.bsseval import bss_eval, bss_eval_each

Array = NDArray[Any]


def both(references: Array, estimates: Array, window: int, filter_length: int = 512) -> tuple[Array, Array]:
    """Our measures, taken together with those of another estimate, and museval's, `(measures, sources, frames)`."""
    together = [estimates[::-1], estimates]
    _, scores = bss_eval_each(references, together, window=window, hop=window, filter_length=filter_length)
    expected = museval.metrics.bss_eval(
        references.swapaxes(1, 2), estimates.swapaxes(1, 2), window=window, hop=window, filters_len=filter_length
    )
    return scores, np.stack(expected[:4])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sources=st.integers(1, 3),
    channels=st.integers(1, 2),
    samples=st.integers(200, 3000),
    filter_length=st.sampled_from([1, 2, 17, 64]),
)
def test_every_frame_and_measure_equals_museval(
    seed: int, sources: int, channels: int, samples: int, filter_length: int
) -> None:
    random = np.random.default_rng(seed)
    references = random.standard_normal((sources, channels, samples))
    estimates = references + 0.3 * random.standard_normal(references.shape) + 0.1 * references.mean(axis=0)
    found, expected = both(references, estimates, window=100, filter_length=filter_length)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["Hollow Ground - Ill Fate", "PR - Oh No", "BKS - Bulldozer"])
def test_decoded_songs_whose_equations_are_nearly_singular_equal_museval(preview_root: Path, name: str) -> None:
    song = next((song for song in open_dataset(preview_root).split("test") if song.name == name), None)
    if song is None:
        pytest.skip(f"{name} is not in this dataset")
    sources, sample_rate = read_sources(song, ("mixture", "vocals", "accompaniment"))
    sources = {source: waveform[:, : 7 * sample_rate] for source, waveform in sources.items()}
    spectrum = np.fft.rfft(sources["mixture"])
    bins = np.fft.rfftfreq(sources["mixture"].shape[1], 1 / sample_rate)
    vocals = np.fft.irfft(spectrum * ((bins > 200) & (bins < 4000)), sources["mixture"].shape[1])
    references = np.stack([sources["vocals"], sources["accompaniment"]]).astype(np.float64)
    estimates = np.stack([vocals, sources["mixture"] - vocals])
    found, expected = both(references, estimates, window=sample_rate)
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_exactly_dependent_channels_equal_museval() -> None:
    random = np.random.default_rng(0)
    references = np.repeat(random.standard_normal((2, 1, 4000)), 2, axis=1)
    estimates = references + 0.1 * random.standard_normal(references.shape)
    found, expected = both(references, estimates, window=1000, filter_length=16)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=0, atol=1e-3)


def test_both_ways_of_solving_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    references = random.standard_normal((2, 2, 20_000))
    estimates = references + 0.2 * random.standard_normal(references.shape) + 0.1 * references[::-1]
    short = bss_eval(references, estimates, window=5000, hop=5000)
    monkeypatch.setattr(bsseval_short, "LONGEST_FFT", 0)
    long = bss_eval(references, estimates, window=5000, hop=5000)
    np.testing.assert_allclose(short, long, rtol=0, atol=1e-6)
