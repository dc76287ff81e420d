from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from storage.errors import UserError
from storage.store import SpectrogramStore
from tests.vocsep.training.training_runs import SAMPLES, SMALL, Array, Arrays, small_store, song
from vocsep.metrics.bsseval import frame_sdr
from vocsep.models.architecture import UNetArchitecture
from vocsep.models.unet import UNet
from vocsep.spectrograms.masking import apply_mask
from vocsep.training.validation import load_song, median_frame_sdr, validate


class Constant(UNet):
    """A network whose mask is the same everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__(UNetArchitecture(channels=1, width=1))
        self.value = value
        self.eval()

    def forward(self, magnitudes: Tensor) -> Tensor:
        return torch.full_like(magnitudes, self.value)


def frames_sdr(reference: Array, estimate: Array) -> list[float]:
    """10 log10(|s|^2 / |s_hat - s|^2) of each second, from its definition."""
    reference, estimate = reference.astype(np.float64), estimate.astype(np.float64)
    return [
        10 * np.log10((true**2).sum() / ((guess - true) ** 2).sum())
        for true, guess in (
            (reference[:, start : start + 1000], estimate[:, start : start + 1000])
            for start in range(0, reference.shape[1] - 999, 1000)
        )
    ]


def test_floor_is_the_sdr_of_the_mixture_itself(demo_store: SpectrogramStore) -> None:
    (track,) = demo_store.tracks("valid")
    mixture, vocals = (
        np.array(demo_store.array(track, f"{name}_waveform"), dtype=np.float64) for name in ("mixture", "vocals")
    )
    scores = []
    for start in range(0, mixture.shape[1] - 11025 + 1, 11025):
        true, estimate = vocals[:, start : start + 11025], mixture[:, start : start + 11025]
        if true.any():
            scores.append(10 * np.log10((true**2).sum() / ((estimate - true) ** 2).sum()))
    assert validate(demo_store, None).sdr_db == pytest.approx(np.median(scores), abs=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_score_of_several_songs_is_the_median_of_their_medians(tmp_path: Path, channels: int) -> None:
    store = small_store(tmp_path / "store.zarr", ("valid", "valid", "valid", "train"), channels=channels)
    medians = {}
    for index, track in enumerate(store.tracks("valid")):
        mixture, vocals = song(index, channels)
        medians[track.id] = float(np.median(frames_sdr(vocals, mixture)))
    result = validate(store, None)
    assert result.song_sdr_db == pytest.approx(medians, abs=1e-5)
    assert result.sdr_db == pytest.approx(np.median(list(medians.values())), abs=1e-5)


def test_frames_are_those_of_the_fast_evaluation(tmp_path: Path) -> None:
    mixture, vocals = song(0, 2)
    expected = frame_sdr(vocals[None], mixture[None], window=1000, hop=1000)
    assert median_frame_sdr(vocals, mixture, 1000) == pytest.approx(np.median(expected), abs=1e-9)
    assert median_frame_sdr(vocals, mixture, 1000) == pytest.approx(np.median(frames_sdr(vocals, mixture)), abs=1e-5)


@pytest.mark.parametrize("value", [0.25, 1.0])
def test_network_is_scored_by_its_masked_mixture(tmp_path: Path, value: float) -> None:
    store = small_store(tmp_path / "store.zarr", ("valid",))
    (track,) = store.tracks("valid")
    mixture, vocals = load_song(store, track)
    mask = np.full(store.array(track, "mixture").shape, value, dtype=np.float32)
    estimate = apply_mask(mixture, SMALL.sample_rate, mask, SMALL)
    assert validate(store, Constant(value)).sdr_db == pytest.approx(np.median(frames_sdr(vocals, estimate)), abs=1e-4)


def test_silence_scores_0_db(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("valid", "valid"))
    assert validate(store, Constant(0.0)).sdr_db == pytest.approx(0.0, abs=1e-6)


def test_estimates_that_are_asked_for_are_those_of_the_first_songs(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store.zarr", ("valid", "valid", "valid"))
    assert validate(store, Constant(1.0)).estimates == {}
    result = validate(store, Constant(1.0), keep_songs=2)
    assert list(result.estimates) == [track.id for track in store.tracks("valid")][:2]
    for track in store.tracks("valid")[:2]:
        estimate = result.estimates[track.id]
        assert estimate.shape == (1, SAMPLES)
        _, vocals = load_song(store, track)
        assert median_frame_sdr(vocals, estimate, 1000) == pytest.approx(result.song_sdr_db[track.id], abs=1e-9)


def test_songs_and_seconds_without_vocals_are_left_out(tmp_path: Path) -> None:
    def change(name: str, arrays: Arrays) -> None:
        if name == "Song 1":
            arrays["vocals_waveform"][:] = 0
        if name == "Song 2":
            arrays["vocals_waveform"][:, :2000] = 0

    store = small_store(tmp_path / "store.zarr", ("valid", "valid", "valid"), change=change)
    (_, half), (_, whole) = ((index, song(index)) for index in (1, 2))
    expected = [np.median(frames_sdr(half[1], half[0])[2:]), np.median(frames_sdr(whole[1], whole[0]))]
    assert validate(store, None).sdr_db == pytest.approx(np.median(expected), abs=1e-5)


def test_store_without_songs_to_score_is_one_line_that_names_it(tmp_path: Path) -> None:
    def change(name: str, arrays: Arrays) -> None:
        if "vocals_waveform" in arrays:
            arrays["vocals_waveform"][:] = 0

    silent = small_store(tmp_path / "silent.zarr", ("train", "valid"), change=change)
    empty = small_store(tmp_path / "empty.zarr", ("train", "test"))
    for store, words in ((silent, "silent"), (empty, "no validation songs")):
        with pytest.raises(UserError, match=words) as error:
            validate(store, None)
        assert str(store.path) in str(error.value)
        assert "\n" not in str(error.value)
