from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray

from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.oracles import ideal_estimates, ideal_ratio_mask
from vocsep.metrics.bsseval import frame_sdr
from vocsep.metrics.song import song_sdr
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.spectrograms.features import features
from vocsep.spectrograms.masking import apply_mask

Array = NDArray[Any]
Power = Literal[1, 2]

FINE = load_spectrogram_config("fine")
NOTEBOOK = load_spectrogram_config("notebook")


def tone(*frequencies: float, sample_rate: int = 44100, seconds: float = 2.0) -> Waveform:
    """Stereo tones of equal power, each with its own phase, faded in and out."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    fade = np.minimum(1.0, np.minimum(times, times[-1] - times) / 0.25)
    envelope = 0.2 * np.sin(0.5 * np.pi * fade) ** 2
    mono = sum(np.cos(2 * np.pi * frequency * times + frequency) for frequency in frequencies)
    return np.stack([envelope * mono, -0.7 * envelope * mono]).astype(np.float32)


# The masks


def test_irm1_is_the_share_of_the_vocals_magnitude_and_0_in_silence() -> None:
    vocals = np.array([[[3.0, 0.0, 5.0, 0.0, 1e-30]]], dtype=np.float32)
    accompaniment = np.array([[[1.0, 2.0, 0.0, 0.0, 1e-30]]], dtype=np.float32)
    expected = [[[0.75, 0.0, 1.0, 0.0, 0.5]]]
    assert ideal_ratio_mask(vocals, accompaniment).tolist() == expected
    assert ideal_ratio_mask(vocals, accompaniment, power=1).tolist() == expected


def test_irm2_is_the_share_of_the_vocals_power_and_0_in_silence() -> None:
    vocals = np.array([[[3.0, 0.0, 5.0, 0.0, 1.0, 2.0]]], dtype=np.float32)
    accompaniment = np.array([[[1.0, 2.0, 0.0, 0.0, 1.0, 1.0]]], dtype=np.float32)
    mask = ideal_ratio_mask(vocals, accompaniment, power=2)
    assert mask.dtype == np.float32
    np.testing.assert_allclose(mask, [[[0.9, 0.0, 1.0, 0.0, 0.5, 0.8]]], rtol=0, atol=1e-7)


@pytest.mark.parametrize("power", [1, 2])
def test_mask_of_silence_is_0_and_nothing_is_divided_by_0(power: Power) -> None:
    silence = np.zeros((2, 3, 4), np.float32)
    with np.errstate(all="raise"):
        assert not ideal_ratio_mask(silence, silence, power).any()


@pytest.mark.parametrize("power", [1, 2])
@settings(deadline=None)
@given(
    pair=numpy_strategies.arrays(
        np.float32, (2, 1, 3, 4), elements=st.just(0.0) | st.floats(float(np.float32(1e-3)), 1e4, width=32)
    )
)
def test_ideal_ratio_masks_of_both_sources_lie_in_0_to_1_and_sum_to_1_where_there_is_sound(
    pair: Array, power: Power
) -> None:
    vocals, accompaniment = pair
    first, second = ideal_ratio_mask(vocals, accompaniment, power), ideal_ratio_mask(accompaniment, vocals, power)
    for mask in (first, second):
        assert mask.dtype == np.float32
        assert ((mask >= 0) & (mask <= 1)).all()
    np.testing.assert_allclose(first + second, (vocals + accompaniment > 0).astype(np.float32), rtol=0, atol=1e-6)


@settings(deadline=None)
@given(
    pair=numpy_strategies.arrays(np.float32, (2, 1, 3, 4), elements=st.floats(0, 1e4, width=32, allow_subnormal=False))
)
def test_irm1_needs_no_least_loudness(pair: Array) -> None:
    vocals, accompaniment = pair
    first, second = ideal_ratio_mask(vocals, accompaniment), ideal_ratio_mask(accompaniment, vocals)
    np.testing.assert_allclose(first + second, (vocals + accompaniment > 0).astype(np.float32), rtol=0, atol=1e-6)


# The estimates


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("sample_rate", [44100, 48000, 32000])
def test_tones_above_and_below_the_models_band_are_parted_by_the_full_band_mask(sample_rate: int, power: Power) -> None:
    sources = {
        "vocals": tone(1000, 9000, sample_rate=sample_rate),
        "accompaniment": tone(3000, 7000, sample_rate=sample_rate),
    }
    mixture = sources["vocals"] + sources["accompaniment"]
    found = ideal_estimates(mixture, sources, sample_rate, FINE, power=power, full_band=True)
    for source, true in sources.items():
        assert song_sdr(true, found[source]) >= 40


@pytest.mark.parametrize("power", [1, 2])
def test_tones_within_the_models_band_are_parted_at_the_models_band_too(power: Power) -> None:
    sources = {"vocals": tone(1000), "accompaniment": tone(3000)}
    mixture = sources["vocals"] + sources["accompaniment"]
    found = ideal_estimates(mixture, sources, 44100, FINE, power=power, full_band=False)
    for source, true in sources.items():
        assert song_sdr(true, found[source]) >= 40


@pytest.mark.parametrize("power", [1, 2])
def test_what_lies_above_the_models_band_goes_where_the_top_of_the_band_goes(power: Power) -> None:
    # The accompaniment alone fills the top of the band, which ends at 5512.5 Hz, so that the mask above is 0 and the
    # vocals lose one of two equal tones: 10 log10(2/1) dB are left of them, and 10 log10(1/1) of the accompaniment.
    sources = {"vocals": tone(1000, 9000), "accompaniment": tone(5000)}
    mixture = sources["vocals"] + sources["accompaniment"]
    found = ideal_estimates(mixture, sources, 44100, FINE, power=power, full_band=False)
    assert song_sdr(sources["vocals"], found["vocals"]) == pytest.approx(10 * np.log10(2), abs=0.15)
    assert song_sdr(sources["accompaniment"], found["accompaniment"]) == pytest.approx(0.0, abs=0.15)
    whole = ideal_estimates(mixture, sources, 44100, FINE, power=power, full_band=True)
    assert min(song_sdr(true, whole[source]) for source, true in sources.items()) >= 40


@pytest.mark.parametrize("full_band", [False, True])
@pytest.mark.parametrize("config", [FINE, NOTEBOOK], ids=["fine", "notebook"])
@pytest.mark.parametrize(("channels", "samples"), [(2, 30_001), (1, 30_001), (2, 100)])
def test_estimates_have_the_mixtures_shape_and_sum_to_it(
    channels: int, samples: int, config: Any, full_band: bool
) -> None:
    random = np.random.default_rng(0)
    vocals, accompaniment = random.uniform(-0.4, 0.4, (2, channels, samples)).astype(np.float32)
    mixture = vocals + accompaniment
    sources = {"vocals": vocals, "accompaniment": accompaniment}
    found = ideal_estimates(mixture, sources, 44100, config, power=1, full_band=full_band)
    assert set(found) == {"vocals", "accompaniment"}
    for estimate in found.values():
        assert estimate.shape == mixture.shape
        assert estimate.dtype == np.float32
    np.testing.assert_allclose(found["vocals"] + found["accompaniment"], mixture, rtol=0, atol=1e-6)


@pytest.mark.parametrize("full_band", [False, True])
def test_silent_vocals_leave_the_mixture_to_the_accompaniment(full_band: bool) -> None:
    accompaniment = np.random.default_rng(1).uniform(-0.4, 0.4, (2, 20_000)).astype(np.float32)
    sources = {"vocals": np.zeros_like(accompaniment), "accompaniment": accompaniment}
    found = ideal_estimates(accompaniment, sources, 44100, FINE, power=1, full_band=full_band)
    assert not found["vocals"].any()
    np.testing.assert_array_equal(found["accompaniment"], accompaniment)


# Real songs


@pytest.fixture(scope="module")
def ceilings(preview_root: Path) -> dict[str, Array]:
    """Median over 25 songs of the median frame's SDR, vocals and accompaniment, of IRM1 at either band."""
    songs = open_dataset(preview_root, "musdb18").split("test")
    if len(songs) != 25:
        pytest.skip(f"{preview_root} has {len(songs)} test songs; the design's figures are of 25 excerpts")
    medians: dict[str, list[Array]] = {"by hand": [], "model band": [], "full band": []}
    for song in songs:
        for way, estimate, true, sample_rate in ideal_ways(song):
            scores = frame_sdr(true, estimate, window=sample_rate, hop=sample_rate)
            if not np.isnan(scores).all():
                medians[way].append(np.nanmedian(scores, axis=1))
    return {way: np.median(values, axis=0) for way, values in medians.items()}


def ideal_ways(song: Song) -> list[tuple[str, Array, Array, int]]:
    """Estimates by a mask put together here, and by `ideal_estimates` at either band; with the truth."""
    sources, sample_rate = read_sources(song, ("mixture", "vocals", "accompaniment"))
    mixture = sources.pop("mixture")
    vocals, accompaniment = sources.values()
    mask = ideal_ratio_mask(
        np.abs(features(vocals, sample_rate, FINE)), np.abs(features(accompaniment, sample_rate, FINE))
    )
    by_hand = apply_mask(mixture, sample_rate, mask, FINE)
    true = np.stack([vocals, accompaniment])
    ways = [("by hand", np.stack([by_hand, mixture - by_hand]), true, sample_rate)]
    for way, full_band in (("model band", False), ("full band", True)):
        found = ideal_estimates(mixture, sources, sample_rate, FINE, power=1, full_band=full_band)
        ways.append((way, np.stack([found["vocals"], found["accompaniment"]]), true, sample_rate))
    return ways


@pytest.mark.parametrize("way", ["by hand", "model band"])
def test_irm1_on_25_preview_test_songs_scores_as_the_design_says(ceilings: dict[str, Array], way: str) -> None:
    assert ceilings[way][0] == pytest.approx(9.0, abs=0.1)
    assert ceilings[way][1] == pytest.approx(13.6, abs=0.1)


def test_full_band_is_no_worse_than_the_models_band_on_25_preview_test_songs(ceilings: dict[str, Array]) -> None:
    for source in (0, 1):
        assert ceilings["full band"][source] >= ceilings["model band"][source]
