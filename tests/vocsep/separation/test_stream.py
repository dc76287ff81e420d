import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from tests.vocsep.models.small_models import add_model, lively, music
from vocsep.arrays import Spectrogram, Waveform
from vocsep.models import masks
from vocsep.models.masks import predict_block, predict_mask
from vocsep.models.torch_network import TorchNetwork
from vocsep.separation import stream as separation_stream
from vocsep.separation.separator import Separator
from vocsep.separation.stream import Part, overlap_add, segments, separate_stream
from vocsep.separation.wiener import wiener
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config
from vocsep.spectrograms.features import features
from vocsep.spectrograms.fft import SCIPY, Transforms
from vocsep.spectrograms.fft_torch import TorchTransforms
from vocsep.spectrograms.masking import apply_mask, own_rate_stft
from vocsep.spectrograms.stft import istft, stft

Array = NDArray[Any]

LIBRARIES = (SCIPY, TorchTransforms())

PRESETS = {name: load_spectrogram_config(name) for name in ("fine", "notebook")}


def in_blocks(waveform: Waveform, sizes: list[int]) -> Iterator[Waveform]:
    """The waveform cut into blocks of these sizes, over and over."""
    start = 0
    for size in itertools.cycle(sizes):
        yield waveform[:, start : start + size]
        start += size
        if start >= waveform.shape[1]:
            return


def streamed(
    waveform: Waveform,
    sample_rate: int,
    config: SpectrogramConfig,
    channels: int,
    *,
    sizes: list[int],
    refine: bool = False,
    transforms: Transforms = SCIPY,
) -> list[Part]:
    groups = [(0, 1)] if len(waveform) == 2 else [(0,)]
    network = TorchNetwork(lively(channels))

    def block_mask(magnitudes: Spectrogram, first: int, block: slice) -> Spectrogram:
        return predict_block(network, magnitudes, first, block, groups if config.channels == 2 else [(0,)])

    blocks = in_blocks(waveform, sizes)
    return list(
        separate_stream(
            blocks,
            sample_rate,
            config,
            groups,
            block_mask,
            context_frames=network.context_frames,
            refine=refine,
            transforms=transforms,
            jobs=2,
        )
    )


def joined(parts: list[Part], name: str) -> Array:
    return np.concatenate([getattr(part, name) for part in parts], axis=1)


@pytest.mark.parametrize("transforms", LIBRARIES, ids=["scipy", "torch"])
@pytest.mark.parametrize("preset", ["fine", "notebook"])
@pytest.mark.parametrize("network_channels", [1, 2])
@pytest.mark.parametrize(("sample_rate", "channels"), [(44100, 2), (48000, 1), (8000, 2), (22050, 2), (96000, 1)])
def test_song_in_blocks_is_the_song_as_a_whole(
    preset: str,
    network_channels: int,
    sample_rate: int,
    channels: int,
    transforms: Transforms,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = PRESETS[preset]
    # Several blocks, and a last one of a few frames.
    monkeypatch.setattr(masks, "BLOCK_FRAMES", 64)
    waveform = music(1, channels, sample_rate, seconds=200 / config.frames_per_second)
    mask = predict_mask(TorchNetwork(lively(network_channels)), np.abs(features(waveform, sample_rate, config)))
    whole = apply_mask(waveform, sample_rate, mask, config)
    parts = streamed(waveform, sample_rate, config, network_channels, sizes=[7000, 1, 30_000], transforms=transforms)
    assert len(parts) >= 3
    np.testing.assert_array_equal(joined(parts, "mixture"), waveform)
    vocals = joined(parts, "vocals")
    assert vocals.shape == waveform.shape
    # -80 dB is 1e-4; blocks leave less than -100.
    np.testing.assert_allclose(vocals, whole, rtol=0, atol=1e-5)
    assert np.abs(whole).max() > 0.1


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 90_000),
    sample_rate=st.integers(8_000, 192_000),
    preset=st.sampled_from(["fine", "notebook"]),
    size=st.integers(100, 50_000),
)
def test_song_of_any_length_and_rate_in_blocks_of_any_size_is_the_song_as_a_whole(
    samples: int, sample_rate: int, preset: str, size: int
) -> None:
    config = PRESETS[preset]
    waveform = np.random.default_rng(samples).uniform(-0.5, 0.5, (1, samples)).astype(np.float32)
    mask = predict_mask(TorchNetwork(lively(1)), np.abs(features(waveform, sample_rate, config)))
    whole = apply_mask(waveform, sample_rate, mask, config)
    block_frames = masks.BLOCK_FRAMES
    try:
        masks.BLOCK_FRAMES = 64
        parts = streamed(waveform, sample_rate, config, 1, sizes=[size])
    finally:
        masks.BLOCK_FRAMES = block_frames
    np.testing.assert_array_equal(joined(parts, "mixture"), waveform)
    np.testing.assert_allclose(joined(parts, "vocals"), whole, rtol=0, atol=1e-5)


def test_parts_hold_what_the_model_saw_and_predicted_frame_by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "BLOCK_FRAMES", 64)
    waveform = music(2, 2, 44100, seconds=4.0)
    magnitudes = np.abs(features(waveform, 44100, PRESETS["fine"]))
    parts = streamed(waveform, 44100, PRESETS["fine"], 2, sizes=[10_000])
    np.testing.assert_allclose(joined(parts, "magnitudes"), magnitudes, rtol=0, atol=1e-4)
    mask = predict_mask(TorchNetwork(lively(2)), magnitudes)
    np.testing.assert_allclose(joined(parts, "mask"), mask, rtol=0, atol=1e-4)


def test_wiener_filter_works_on_stretches_of_the_whole_song(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PRESETS["fine"]
    monkeypatch.setattr(masks, "BLOCK_FRAMES", 64)
    monkeypatch.setattr(separation_stream, "WIENER_FRAMES", 32)
    waveform = music(3, 2, 44100, seconds=3.0)
    parts = streamed(waveform, 44100, config, 2, sizes=[10_000], refine=True)
    mask = predict_mask(TorchNetwork(lively(2)), np.abs(features(waveform, 44100, config)))
    spectrum = stft(waveform, 4096, 1024)
    vocals = spectrum * np.concatenate([mask[..., :1], mask, np.zeros((2, mask.shape[1], 1536))], axis=2)
    above = mask[..., -51:].mean(axis=-1, keepdims=True)
    vocals[..., 513:] = spectrum[..., 513:] * above
    for start in range(0, spectrum.shape[1], 32):
        stretch = slice(start, start + 32)
        vocals[:, stretch] = wiener(spectrum[:, stretch], vocals[:, stretch], [(0, 1)])
    expected = istft(vocals.astype(np.complex64), 4096, 1024, waveform.shape[1])
    np.testing.assert_allclose(joined(parts, "vocals"), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("transforms", LIBRARIES, ids=["scipy", "torch"])
def test_windowed_frames_are_overlapped_and_added_whether_the_step_divides_them_or_not(transforms: Transforms) -> None:
    random = np.random.default_rng(0)
    for length, hop in ((16, 4), (18, 4), (10, 3), (8, 8)):
        frames = random.standard_normal((2, 5, length)).astype(np.float32)
        window = random.standard_normal(length).astype(np.float32)
        expected = np.ones((2, 4 * hop + length))
        for frame in range(5):
            expected[:, frame * hop : frame * hop + length] += frames[:, frame] * window
        waveform = np.ones((2, 4 * hop + length), np.float32)
        overlap_add(frames, window, waveform, hop, transforms)
        np.testing.assert_allclose(waveform, expected, rtol=0, atol=1e-5)


def test_every_own_frame_lies_in_one_segment_and_every_model_frame_in_one_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(masks, "BLOCK_FRAMES", 64)
    for sample_rate in (8000, 44100, 47_999):
        waveform = music(4, 2, sample_rate, seconds=7.0)
        cut = list(segments(in_blocks(waveform, [4321]), sample_rate, PRESETS["fine"], context_frames=192))
        hop = own_rate_stft(sample_rate, PRESETS["fine"])[1]
        edges = [segment.own_frames for segment in cut]
        assert [edge.start for edge in edges] == [0, *(edge.stop for edge in edges[:-1])]
        assert edges[-1].stop == 1 + waveform.shape[1] // hop
        starts = [segment.block.start for segment in cut]
        assert starts == list(range(0, 64 * len(cut), 64))
        assert all(segment.block.stop == segment.block.start + 64 for segment in cut[:-1])
        assert all(segment.masked.stop == segment.block.stop + 1 for segment in cut[:-1])
        assert cut[-1].masked == cut[-1].block


def test_what_goes_wrong_with_a_block_ends_the_song_at_once() -> None:
    def broken() -> Iterator[Waveform]:
        yield music(0, 2, 44100)
        raise UserError("song.mp3: cut off")

    separator = Separator(TorchNetwork(lively(2)), PRESETS["fine"], jobs=2)
    with pytest.raises(UserError, match="cut off"):
        list(separator.stream(broken(), 44100, [(0, 1)]))


PEAK = """
import resource, sys
import numpy as np
from pathlib import Path
from vocsep.separation.separator import Separator

separator = Separator.load("champion", Path(sys.argv[1]), jobs=2)
random = np.random.default_rng(0)
block = random.uniform(-0.1, 0.1, (2, 1 << 18)).astype(np.float32)
samples = 0
for part in separator.stream((block for _ in range(int(sys.argv[2]))), 44100, [(0, 1)]):
    samples += part.vocals.shape[1]
assert samples == int(sys.argv[2]) << 18
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length_of_a_song(tmp_path: Path) -> None:
    add_model(tmp_path / "models", channels=2)
    peaks = []
    for blocks in (30, 150):  # 3 and 15 minutes, 60 and 300 MB
        command = [sys.executable, "-c", PEAK, str(tmp_path / "models"), str(blocks)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 60, f"{peaks} MB"
