import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from tests.reference import museval
from vocsep.metrics import bsseval, bsseval_short
from vocsep.metrics.bsseval import bss_eval, frame_sdr

Array = NDArray[Any]
TOLERANCE_DB = 1e-3


@pytest.fixture(autouse=True, scope="module")
def long_songs_only() -> Iterator[None]:
    """Signals here are short, so that museval is quick; they are to go the way of long songs all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bsseval_short, "LONGEST_FFT", 0)
        yield


def noise(seed: int, *shape: int) -> Array:
    """Noise with a falling spectrum that has energy in all bands."""
    white = np.random.default_rng(seed).standard_normal(shape)
    white[..., 1:] += 0.7 * white[..., :-1]
    return white


def leaky(references: Array, seed: int = 1, level: float = 0.1) -> Array:
    """Estimates with filtering, interference and artifacts."""
    estimates = 0.9 * references + 0.2 * references.mean(axis=0) + level * noise(seed, *references.shape)
    estimates[..., 3:] += 0.3 * references[..., :-3]
    return np.asarray(estimates)


def theirs(references: Array, estimates: Array, window: int, hop: int, filter_length: int) -> Array:
    measures = museval.metrics.bss_eval(
        references.transpose(0, 2, 1),
        estimates.transpose(0, 2, 1),
        window=window,
        hop=hop,
        filters_len=filter_length,
    )
    return np.stack(measures[:4])


def assert_as_museval(references: Array, estimates: Array, window: int, hop: int, filter_length: int = 512) -> Array:
    expected = theirs(references, estimates, window, hop, filter_length)
    scores = bss_eval(references, estimates, window=window, hop=hop, filter_length=filter_length)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE_DB)
    np.testing.assert_array_equal(frame_sdr(references, estimates, window=window, hop=hop), scores[0])
    return scores


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sources=st.integers(1, 3),
    channels=st.integers(1, 2),
    samples=st.integers(701, 3001),
    window=st.integers(150, 3500),
    hop=st.integers(100, 1200),
    filter_length=st.integers(1, 33),
    silences=st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2800), st.integers(1, 1500)), max_size=3
    ),
    single=st.booleans(),
)
def test_every_frame_and_measure_equals_museval(
    seed: int,
    sources: int,
    channels: int,
    samples: int,
    window: int,
    hop: int,
    filter_length: int,
    silences: list[tuple[bool, int, int, int]],
    single: bool,
) -> None:
    references = noise(seed, sources, channels, samples)
    estimates = leaky(references, seed + 1)
    for in_reference, source, start, length in silences:
        (references if in_reference else estimates)[source % sources, :, start : start + length] = 0
    # A source without 200 samples that sound makes the filters, or the whole evaluation, undefined.
    sounding = np.minimum((references != 0).any(axis=1).sum(axis=1), (estimates != 0).any(axis=1).sum(axis=1))
    if sounding.min() < 200:
        return
    if single:
        references, estimates = references.astype(np.float32), estimates.astype(np.float32)
    assert_as_museval(references, estimates, window, hop, filter_length)


def test_512_taps_on_stereo_equal_museval() -> None:
    references = noise(0, 2, 2, 16001)
    scores = assert_as_museval(references, leaky(references), window=8000, hop=4000)
    assert scores.shape == (4, 2, 3)
    assert np.isfinite(scores).all()


def test_a_song_shorter_than_a_window_is_one_frame_as_in_museval() -> None:
    references = noise(0, 2, 1, 5003)
    assert assert_as_museval(references, leaky(references), window=44100, hop=44100).shape == (4, 2, 1)


def test_an_incomplete_last_frame_is_left_out_as_in_museval() -> None:
    references = noise(0, 1, 2, 2999)
    scores = assert_as_museval(references, leaky(references), window=1000, hop=1000, filter_length=8)
    assert scores.shape == (4, 1, 2)


def test_one_silent_estimate_makes_its_frame_nan_for_all_sources() -> None:
    references = noise(0, 3, 2, 4000)
    estimates = leaky(references)
    estimates[1, :, 1000:2000] = 0
    scores = assert_as_museval(references, estimates, window=1000, hop=1000, filter_length=16)
    assert np.isnan(scores[:, :, 1]).all()
    assert np.isfinite(scores[:, :, [0, 2, 3]]).all()


def test_channels_that_cancel_count_as_silent_as_in_museval() -> None:
    references = noise(0, 2, 2, 3000)
    references[0, 1, :1000] = -references[0, 0, :1000]
    scores = assert_as_museval(references, leaky(references), window=1000, hop=1000, filter_length=16)
    assert np.isnan(scores[:, :, 0]).all()


@pytest.mark.parametrize("silent", ["reference", "estimate"])
def test_a_source_silent_throughout_makes_every_frame_nan(silent: str) -> None:
    references = noise(0, 2, 2, 3000)
    estimates = leaky(references)
    (references if silent == "reference" else estimates)[1] = 0
    assert np.isnan(bss_eval(references, estimates, window=1000, hop=1000)).all()
    assert np.isnan(frame_sdr(references, estimates, window=1000, hop=1000)).all()


def test_mono_stored_as_stereo_equals_museval() -> None:
    mono = np.repeat(np.round(noise(0, 2, 1, 12000) * 3000) / 32768, 2, axis=1)
    estimates = np.round(leaky(mono) * 32768) / 32768
    assert_as_museval(mono, estimates, window=4000, hop=4000, filter_length=64)


def test_one_empty_channel_equals_museval() -> None:
    references = noise(0, 2, 2, 6000)
    references[:, 1] = 0
    assert_as_museval(references, leaky(references), window=2000, hop=2000, filter_length=32)


def test_very_quiet_signals_equal_museval() -> None:
    references = 1e-8 * noise(0, 2, 1, 6000)
    estimates = leaky(references, level=1e-9)
    assert_as_museval(references, estimates, window=2000, hop=2000, filter_length=32)


def test_a_real_song_equals_museval(preview_root: Path) -> None:
    stems: list[Array] = []
    path = sorted(preview_root.glob("test/*.stem.mp4"))[0]
    for number in range(1, 5):
        with av.open(str(path)) as file:
            blocks = [block.to_ndarray() for block in file.decode(audio=number)]
        stems.append(np.concatenate(blocks, axis=-1)[:, : 5 * 44100])
    vocals, accompaniment = stems[3], stems[0] + stems[1] + stems[2]
    mixture = vocals + accompaniment
    spectrum = np.fft.rfft(mixture)
    band = np.fft.rfftfreq(mixture.shape[-1], 1 / 44100)
    estimate = np.fft.irfft(spectrum * ((band > 300) & (band < 3000)), mixture.shape[-1])
    estimate += 0.002 * noise(0, *estimate.shape)
    references = np.stack([vocals, accompaniment])
    estimates = np.stack([estimate, mixture - estimate]).astype(np.float32)
    scores = assert_as_museval(references, estimates, window=44100, hop=44100)
    assert np.isfinite(scores).any()


def test_noise_of_known_energy_gives_its_sdr_and_no_interference() -> None:
    references = noise(0, 2, 2, 40000)
    error = noise(1, 2, 2, 40000)
    error *= 0.1 * np.sqrt((references**2).sum(axis=(1, 2)) / (error**2).sum(axis=(1, 2)))[:, None, None]
    scores = bss_eval(references, references + error, window=40000, hop=40000, filter_length=8)
    np.testing.assert_allclose(scores[0], 20.0, atol=1e-9)
    np.testing.assert_allclose(scores[3], 20.0, atol=0.1)
    assert (scores[2] > 40).all()


def test_orthogonal_interference_is_interference_and_no_artifact() -> None:
    taps = 8
    references = np.zeros((2, 1, 8000))
    references[0, 0, 100::40] = 1
    references[1, 0, 120::40] = 1  # no delay of up to 7 samples meets the other's pulses
    estimates = references.copy()
    estimates[0] += 0.1 * references[1]
    estimates[1] += 0.1 * references[0]
    scores = bss_eval(references, estimates, window=8000, hop=8000, filter_length=taps)
    np.testing.assert_allclose(scores[0], 20.0, atol=0.05)
    np.testing.assert_allclose(scores[2], 20.0, atol=0.05)
    assert (scores[1] > 100).all()
    assert (scores[3] > 100).all()


def test_a_filtered_reference_is_spatial_distortion_and_no_interference() -> None:
    references = noise(0, 2, 2, 8000)
    estimates = references.copy()
    estimates[..., 4:] += 0.5 * references[..., :-4]
    scores = bss_eval(references, estimates, window=8000, hop=8000, filter_length=16)
    assert (scores[1] < 10).all()
    assert (scores[2] > 35).all()


def test_the_wrong_scale_scores_badly_and_is_never_mended() -> None:
    references = noise(0, 2, 2, 6000)
    for scale, sdr in ((0.5, 20 * np.log10(2)), (2.0, 0.0), (-1.0, -20 * np.log10(2)), (11.0, -20.0)):
        scores = bss_eval(references, scale * references, window=2000, hop=2000, filter_length=8)
        np.testing.assert_allclose(scores[0], sdr, atol=1e-9)
        np.testing.assert_allclose(scores[1], sdr, atol=1e-6)
    quiet = bss_eval(0.01 * references, 0.01 * leaky(references), window=2000, hop=2000, filter_length=8)
    usual = bss_eval(references, leaky(references), window=2000, hop=2000, filter_length=8)
    np.testing.assert_allclose(quiet, usual, atol=1e-6)


def test_a_perfect_estimate_has_infinite_sdr() -> None:
    references = noise(0, 2, 2, 3000)
    assert (frame_sdr(references, references, window=1000, hop=1000) == np.inf).all()
    assert (bss_eval(references, references, window=1000, hop=1000, filter_length=8)[0] == np.inf).all()


@pytest.mark.parametrize("fft_length", [64, 500, 1 << 12, 1 << 16])
def test_block_size_changes_no_result(fft_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    references = noise(0, 2, 2, 20011)
    estimates = leaky(references)
    expected = bss_eval(references, estimates, window=9001, hop=5000, filter_length=40)
    monkeypatch.setattr(bsseval, "FFT_LENGTH", fft_length)
    scores = bss_eval(references, estimates, window=9001, hop=5000, filter_length=40)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-7)


def test_the_order_in_memory_and_float32_change_no_result() -> None:
    references = noise(0, 2, 2, 6000).astype(np.float32)
    estimates = leaky(references).astype(np.float32)
    expected = bss_eval(references.astype(np.float64), estimates.astype(np.float64), window=2000, hop=2000)
    samples_first = [np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1) for x in (references, estimates)]
    scores = bss_eval(samples_first[0], samples_first[1], window=2000, hop=2000)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("window", [8000, 10**9])
def test_memory_does_not_grow_with_the_song(window: int) -> None:
    def peak(samples: int) -> int:
        references = np.random.default_rng(0).standard_normal((2, 2, samples), dtype=np.float32)
        # As museval's users hold them: samples before channels.
        references = np.ascontiguousarray(references.transpose(0, 2, 1)).transpose(0, 2, 1)
        estimates = references[:, :, ::-1]
        tracemalloc.start()
        bss_eval(references, estimates, window=window, hop=8000, filter_length=32)
        frame_sdr(references, estimates, window=window, hop=8000)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    short, long = peak(100_000), peak(400_000)
    more_input = 2 * 2 * 2 * 300_000 * 4
    assert long - short < 0.02 * more_input


def test_inputs_are_left_as_they_were() -> None:
    references = noise(0, 2, 2, 3000)
    estimates = leaky(references)
    before = references.copy(), estimates.copy()
    bss_eval(references, estimates, window=1000, hop=1000, filter_length=8)
    np.testing.assert_array_equal(references, before[0])
    np.testing.assert_array_equal(estimates, before[1])


def with_value(value: float) -> Array:
    waveforms = noise(0, 2, 2, 100)
    waveforms[1, 0, 50] = value
    return waveforms


GOOD = noise(0, 2, 2, 100)


@pytest.mark.parametrize(
    ("references", "estimates", "changes", "says"),
    [
        (GOOD, noise(0, 2, 2, 99), {}, "differ in shape"),
        (GOOD[0], GOOD[0], {}, "expected (sources, channels, samples)"),
        (noise(0, 2, 100, 2), noise(0, 2, 100, 2), {}, "axes look swapped"),
        (noise(0, 2, 2, 0), noise(0, 2, 2, 0), {}, "nothing to score"),
        (with_value(np.nan), GOOD, {}, "references[1] has NaN"),
        (GOOD, with_value(np.inf), {}, "estimates[1] has NaN, Inf"),
        (GOOD, with_value(1e200), {}, "beyond 1e+30"),
        (GOOD, (1000 * GOOD).astype(np.int16), {}, "estimates are int16"),
        (GOOD, GOOD, {"window": 0}, "window is 0"),
        (GOOD, GOOD, {"hop": -1}, "hop is -1"),
        (GOOD, GOOD, {"hop": 0.5}, "hop is 0.5"),
        (GOOD, GOOD, {"filter_length": 0}, "filter_length is 0"),
    ],
)
def test_a_mistake_is_one_clear_line(references: Array, estimates: Array, changes: dict[str, Any], says: str) -> None:
    lengths = {"window": 50, "hop": 50, "filter_length": 4} | changes
    with pytest.raises(UserError) as caught:
        bss_eval(references, estimates, **lengths)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    if "filter_length" not in changes:
        del lengths["filter_length"]
        with pytest.raises(UserError) as caught:
            frame_sdr(references, estimates, **lengths)
        assert says in str(caught.value)
