from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vocsep.arrays import Spectrogram, Waveform
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config
from vocsep.spectrograms.features import drop_bin, features, magnitude_blocks
from vocsep.spectrograms.masking import CONTINUED_SHARE, apply_mask, multiply_mask, own_rate_stft, restore_bin
from vocsep.spectrograms.stft import istft, stft, stft_blocks

Array = NDArray[Any]

FINE = load_spectrogram_config("fine")
NOTEBOOK = load_spectrogram_config("notebook")
PRESETS = {"fine": FINE, "notebook": NOTEBOOK}
RATES = (44100, 48000, 8000, 22050)


def noise(seed: int, channels: int, samples: int) -> Waveform:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def tone(frequency: float, sample_rate: int, seconds: float) -> Waveform:
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.cos(2 * np.pi * frequency * times)).astype(np.float32)[None]


def decibels(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-30)))


def brute_force_stft(waveform: Array, n_fft: int, hop: int) -> Array:
    """Every frame, window and sum of the transform's definition, in float64."""
    channels, samples = waveform.shape
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    kernel = np.exp(-2j * np.pi * np.outer(np.arange(n_fft), np.arange(n_fft // 2 + 1)) / n_fft)
    spectrum = np.zeros((channels, 1 + samples // hop, n_fft // 2 + 1), dtype=np.complex128)
    for channel in range(channels):
        for frame in range(spectrum.shape[1]):
            first = frame * hop - n_fft // 2
            cut = np.array([waveform[channel, n] if 0 <= n < samples else 0 for n in range(first, first + n_fft)])
            spectrum[channel, frame] = (window * cut) @ kernel
    return spectrum


# The transform


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 90),
    channels=st.integers(1, 3),
    sizes=st.sampled_from([(16, 4), (16, 5), (8, 2), (32, 24), (20, 7)]),
    seed=st.integers(0, 100),
)
def test_stft_is_the_transform_of_centred_windowed_zero_padded_frames_time_first(
    samples: int, channels: int, sizes: tuple[int, int], seed: int
) -> None:
    waveform = noise(seed, channels, samples)
    np.testing.assert_allclose(stft(waveform, *sizes), brute_force_stft(waveform, *sizes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 1023, 1024, 5000, 11025])
def test_there_are_as_many_frames_as_hops_begin_in_the_waveform(samples: int) -> None:
    assert stft(noise(0, 2, samples), 1024, 256).shape == (2, 1 + samples // 256, 513)


@pytest.mark.parametrize("samples", [1, 2, 17, 255, 256, 1000, 1023, 1024, 1025, 4096, 10_001])
@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (4096, 1024), (750, 187), (64, 16)])
def test_istft_undoes_stft_for_any_length(samples: int, n_fft: int, hop: int) -> None:
    waveform = noise(1, 2, samples)
    restored = istft(stft(waveform, n_fft, hop), n_fft, hop, samples)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, waveform, rtol=0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    sizes=st.sampled_from([(16, 4), (16, 5), (8, 2), (32, 24), (20, 7)]),
    seed=st.integers(0, 100),
)
def test_stft_of_blocks_of_any_lengths_is_that_of_the_whole(
    lengths: list[int], sizes: tuple[int, int], seed: int
) -> None:
    waveform = noise(seed, 2, sum(lengths))
    blocks = np.split(waveform, np.cumsum(lengths)[:-1], axis=1)
    spectrum = np.concatenate(list(stft_blocks(blocks, *sizes)), axis=1)
    np.testing.assert_allclose(spectrum, brute_force_stft(waveform, *sizes), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (1024, 768), (4096, 1024)])
def test_stft_of_a_long_waveform_is_that_of_librosa_in_float64(n_fft: int, hop: int) -> None:
    waveform = noise(2, 2, 300_007)
    expected = librosa.stft(waveform.astype(np.float64), n_fft=n_fft, hop_length=hop, pad_mode="constant")
    spectrum = stft(waveform, n_fft, hop)
    assert spectrum.dtype == np.complex64
    # Rounding of float32; librosa's own float32 result differs as much.
    np.testing.assert_allclose(spectrum, expected.swapaxes(1, 2), rtol=0, atol=2e-6 * np.abs(expected).max())


def test_no_blocks_have_no_spectrum() -> None:
    assert list(stft_blocks([], 16, 4)) == []


# Bins


def test_dc_rule_keeps_bins_1_to_512_and_nyquist_rule_0_to_511() -> None:
    numbers = np.arange(513, dtype=np.float32)[None, None]
    assert drop_bin(numbers, FINE).tolist() == [[list(range(1, 513))]]
    nyquist = FINE.model_copy(update={"dropped_bin": "nyquist"})
    assert drop_bin(numbers, nyquist).tolist() == [[list(range(512))]]
    everything = FINE.model_copy(update={"dropped_bin": "none"})
    assert drop_bin(numbers, everything).tolist() == [[list(range(513))]]


def test_restored_bin_takes_the_mask_of_its_neighbour() -> None:
    mask = np.random.default_rng(0).random((2, 3, 512), dtype=np.float32)
    full = restore_bin(mask, FINE)
    assert full.shape == (2, 3, 513)
    np.testing.assert_array_equal(full[..., 1:], mask)
    np.testing.assert_array_equal(full[..., 0], mask[..., 0])
    full = restore_bin(mask, FINE.model_copy(update={"dropped_bin": "nyquist"}))
    np.testing.assert_array_equal(full[..., :-1], mask)
    np.testing.assert_array_equal(full[..., -1], mask[..., -1])
    whole = np.random.default_rng(0).random((2, 3, 513), dtype=np.float32)
    np.testing.assert_array_equal(restore_bin(whole, FINE.model_copy(update={"dropped_bin": "none"})), whole)


@pytest.mark.parametrize(
    ("rule", "bins"), [("dc", (1, 2, 100, 510, 512)), ("nyquist", (0, 2, 100, 511)), ("none", (0, 2, 512))]
)
def test_pure_tone_of_bin_k_lands_at_index_k_less_the_dropped_ones(rule: str, bins: tuple[int, ...]) -> None:
    config = SpectrogramConfig.model_validate(FINE.model_dump() | {"dropped_bin": rule})
    for k in bins:
        spectrum = features(tone(k * 11025 / 1024, 11025, 1.0), 11025, config)
        index = k - 1 if rule == "dc" else k
        assert np.abs(spectrum[0, spectrum.shape[1] // 2]).argmax() == index


# Features


@pytest.mark.parametrize("preset", ["fine", "notebook"])
def test_tone_peaks_at_the_same_bin_with_the_same_height_whatever_the_rate_of_the_file(preset: str) -> None:
    config = PRESETS[preset]
    k = 93
    for sample_rate in (44100, 48000, 8000, 22050, 96000, config.sample_rate):
        spectrum = features(tone(k * config.sample_rate / 1024, sample_rate, 1.5), sample_rate, config)
        assert abs(spectrum.shape[1] - (1 + 1.5 * config.frames_per_second)) <= 1
        middle = np.abs(spectrum[0, spectrum.shape[1] // 2])
        assert middle.argmax() == k - 1
        # A tone of amplitude 0.5 under a Hann window whose values sum to n_fft / 2.
        assert middle.max() == pytest.approx(0.5 * 1024 / 4, rel=5e-3)


def test_one_channel_preset_sees_the_mean_of_the_channels_and_two_channel_preset_both() -> None:
    stereo = noise(2, 2, 20_000)
    assert features(stereo, 11025, FINE).shape[0] == 2
    assert features(stereo[:1], 11025, FINE).shape[0] == 1
    mono = features(stereo, 8192, NOTEBOOK)
    assert mono.shape[0] == 1
    mean = (stereo[:1] + stereo[1:]) / np.float32(2)
    np.testing.assert_allclose(mono, stft(mean, 1024, 768)[..., 1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("preset", ["fine", "notebook"])
def test_magnitudes_of_blocks_are_those_of_the_whole_waveforms(preset: str) -> None:
    config = PRESETS[preset]
    pair = np.stack([noise(5, 2, 90_001), noise(6, 2, 90_001)])
    parts: dict[str, list[Array]] = {"mixture": [], "vocals": [], "accompaniment": []}
    for name, values in magnitude_blocks(np.split(pair, [1, 500, 50_000, 60_000], axis=-1), config):
        parts[name].append(values)
    whole = [stft(waveform, config.n_fft, config.hop_length)[..., 1:] for waveform in pair]
    for name, spectrum in (("mixture", whole[0]), ("vocals", whole[1]), ("accompaniment", whole[0] - whole[1])):
        np.testing.assert_allclose(np.concatenate(parts[name], axis=1), np.abs(spectrum), rtol=0, atol=1e-4)


# The file's own rate


def test_own_rate_of_44100_hz_gives_four_times_the_sizes_of_fine() -> None:
    assert own_rate_stft(44100, FINE) == (4096, 1024)
    assert own_rate_stft(22050, FINE) == (2048, 512)
    assert own_rate_stft(11025, FINE) == (1024, 256)


@settings(max_examples=500, deadline=None)
@given(sample_rate=st.integers(8_000, 192_000), preset=st.sampled_from(["fine", "notebook"]))
def test_own_window_is_even_and_lasts_as_long_as_the_presets_within_2_percent(sample_rate: int, preset: str) -> None:
    config = PRESETS[preset]
    n_fft, hop = own_rate_stft(sample_rate, config)
    assert n_fft % 2 == 0
    assert n_fft / sample_rate == pytest.approx(config.n_fft / config.sample_rate, rel=0.02)
    # Below half a window between frames, the inverse is exact; a quarter is smooth.
    assert 1 <= hop <= n_fft / 4 + 0.5


# Masks


def low_pass(config: SpectrogramConfig, frames: int, edge_bin: int) -> Array:
    """A mask of 1 up to `edge_bin` of the n_fft // 2 + 1 bins and 0 above."""
    mask = np.zeros((1, frames, config.bins), dtype=np.float32)
    mask[..., :edge_bin] = 1  # index 0 is bin 1
    return mask


@pytest.mark.parametrize("preset", ["fine", "notebook"])
@pytest.mark.parametrize("sample_rate", RATES)
def test_mask_lets_through_and_removes_tones_ten_bins_beside_its_edge(sample_rate: int, preset: str) -> None:
    config = PRESETS[preset]
    edge = 150
    bin_hertz = config.sample_rate / config.n_fft
    for offset in (-10, 10, -100, 100):
        waveform = tone((edge + offset) * bin_hertz, sample_rate, 2.0)
        frames = features(waveform, sample_rate, config).shape[1]
        passed = apply_mask(waveform, sample_rate, low_pass(config, frames, edge), config)
        # Away from the ends, where the tone is cut and so is no pure tone.
        inner = slice(waveform.shape[1] // 4, 3 * waveform.shape[1] // 4)
        difference = passed - waveform if offset < 0 else passed
        left = np.linalg.norm(difference[:, inner]) / np.linalg.norm(waveform[:, inner])
        assert decibels(float(left)) < -40, f"tone {offset} bins from the edge"


@pytest.mark.parametrize("preset", ["fine", "notebook"])
@pytest.mark.parametrize("sample_rate", RATES)
def test_mask_of_the_first_half_of_time_cuts_at_the_right_time_within_half_a_window(
    sample_rate: int, preset: str
) -> None:
    config = PRESETS[preset]
    waveform = noise(7, 2, 3 * sample_rate)
    frames = features(waveform, sample_rate, config).shape[1]
    half = frames // 2
    mask = np.zeros((2, frames, config.bins), dtype=np.float32)
    mask[:, :half] = 1
    passed = apply_mask(waveform, sample_rate, mask, config)
    n_fft, _ = own_rate_stft(sample_rate, config)
    last_kept = (half - 1) / config.frames_per_second * sample_rate
    first_removed = half / config.frames_per_second * sample_rate
    kept, removed = int(last_kept - n_fft / 2) - 1, int(first_removed + n_fft / 2) + 2
    assert 0 < kept < removed < waveform.shape[1]
    np.testing.assert_allclose(passed[:, :kept], waveform[:, :kept], rtol=0, atol=1e-5)
    np.testing.assert_allclose(passed[:, removed:], 0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["fine", "notebook"])
@pytest.mark.parametrize("sample_rate", [*RATES, 96000, 11025, 12345])
@pytest.mark.parametrize("samples", [1, 300, 20_001])
def test_mask_of_ones_returns_the_input_and_one_of_zeros_nothing(samples: int, sample_rate: int, preset: str) -> None:
    config = PRESETS[preset]
    waveform = noise(8, 2, samples)
    shape = (2, features(waveform, sample_rate, config).shape[1], config.bins)
    kept = apply_mask(waveform, sample_rate, np.ones(shape, np.float32), config)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, waveform, rtol=0, atol=1e-5)
    assert not apply_mask(waveform, sample_rate, np.zeros(shape, np.float32), config).any()


def stretched_mask(
    mask: Spectrogram, sample_rate: int, frames: range, config: SpectrogramConfig, first_frame: int = 0
) -> Spectrogram:
    """The mask on the grid of `own_rate_stft`: what frames of one and the same number become."""
    n_fft, _ = own_rate_stft(sample_rate, config)
    spectrum = np.full((len(mask), len(frames), n_fft // 2 + 1), 1 - 2j, np.complex64)
    multiply_mask(spectrum, mask, sample_rate, config, own_frame=frames.start, first_frame=first_frame)
    np.testing.assert_array_equal(spectrum.imag, -2 * spectrum.real)
    return spectrum.real


def test_mask_at_44100_hz_stands_on_the_grid_of_fine_and_goes_on_above_as_the_mean_of_its_top_bins() -> None:
    mask = np.random.default_rng(9).random((2, 30, 512), dtype=np.float32)
    stretched = stretched_mask(mask, 44100, range(30), FINE)
    assert stretched.shape == (2, 30, 2049)
    np.testing.assert_array_equal(stretched[..., 1:513], mask)
    np.testing.assert_array_equal(stretched[..., 0], mask[..., 0])
    top = mask[..., -round(CONTINUED_SHARE * 512) :].mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(stretched[..., 513:], np.broadcast_to(top, (2, 30, 1536)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("preset", ["fine", "notebook"])
@settings(max_examples=40, deadline=None)
@given(
    sample_rate=st.integers(8_000, 96_000),
    frames=st.integers(1, 12),
    own_frames=st.integers(1, 40),
    seed=st.integers(0, 50),
)
def test_stretched_mask_never_leaves_the_values_of_the_mask(
    preset: str, sample_rate: int, frames: int, own_frames: int, seed: int
) -> None:
    mask = np.random.default_rng(seed).uniform(0.2, 0.7, (1, frames, 512)).astype(np.float32)
    stretched = stretched_mask(mask, sample_rate, range(own_frames), PRESETS[preset])
    assert stretched.dtype == np.float32
    assert stretched.shape == (1, own_frames, own_rate_stft(sample_rate, PRESETS[preset])[0] // 2 + 1)
    assert mask.min() - 1e-6 <= stretched.min()
    assert stretched.max() <= mask.max() + 1e-6


@pytest.mark.parametrize("preset", ["fine", "notebook"])
@pytest.mark.parametrize("sample_rate", RATES)
def test_stretched_mask_reads_a_mask_that_is_linear_in_time_and_frequency_at_the_right_places(
    sample_rate: int, preset: str
) -> None:
    config = PRESETS[preset]
    seconds = 40 / config.frames_per_second
    times = np.arange(41) / config.frames_per_second
    hertz = np.arange(1, 513) * config.sample_rate / config.n_fft
    mask = (0.5 * times[:, None] / seconds + 0.5 * hertz / hertz[-1])[None].astype(np.float32)
    n_fft, hop = own_rate_stft(sample_rate, config)
    frames = int(seconds * sample_rate) // hop
    own_times = np.arange(frames) * hop / sample_rate
    own_hertz = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    inside = (own_hertz >= hertz[0]) & (own_hertz <= hertz[-1])
    expected = 0.5 * own_times[:, None] / seconds + 0.5 * own_hertz[inside] / hertz[-1]
    stretched = stretched_mask(mask, sample_rate, range(frames), config)[0][:, inside]
    np.testing.assert_allclose(stretched, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["fine", "notebook"])
@pytest.mark.parametrize("sample_rate", RATES)
def test_part_of_a_mask_is_stretched_as_it_is_within_the_whole(sample_rate: int, preset: str) -> None:
    config = PRESETS[preset]
    mask = np.random.default_rng(12).random((2, 40, 512), dtype=np.float32)
    hop = own_rate_stft(sample_rate, config)[1]
    frames = int(40 / config.frames_per_second * sample_rate) // hop
    whole = stretched_mask(mask, sample_rate, range(frames), config)
    # Own frames between the model's frames 16 and 32.
    own_frames = [
        frame for frame in range(frames) if 16 <= frame * hop / sample_rate * config.frames_per_second <= 31.999
    ]
    part = stretched_mask(mask[:, 16:33], sample_rate, range(own_frames[0], own_frames[-1] + 1), config, first_frame=16)
    np.testing.assert_allclose(part, whole[:, own_frames], rtol=0, atol=1e-6)


def test_mask_of_one_channel_serves_both_channels_of_a_waveform() -> None:
    waveform = noise(10, 2, 30_000)
    mask = np.random.default_rng(11).random((1, 1 + 7500 // 256, 512), dtype=np.float32)
    both = apply_mask(waveform, 44100, np.concatenate([mask, mask]), FINE)
    np.testing.assert_array_equal(apply_mask(waveform, 44100, mask, FINE), both)


def test_masked_channels_do_not_mix() -> None:
    waveform = noise(12, 2, 30_000)
    mask = np.random.default_rng(13).random((2, 1 + 7500 // 256, 512), dtype=np.float32)
    both = apply_mask(waveform, 44100, mask, FINE)
    for channel in (0, 1):
        alone = apply_mask(waveform[channel : channel + 1], 44100, mask[channel : channel + 1], FINE)
        np.testing.assert_allclose(alone[0], both[channel], rtol=0, atol=1e-6)
