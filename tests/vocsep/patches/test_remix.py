"""Magnitudes of sums whose phases are drawn at random."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from torch import Tensor

from tests.vocsep.patches.makers import Array, cosines_of, maker, sampler
from tests.vocsep.patches.patch_songs import Made, make_store
from vocsep.patches.batch import Batch
from vocsep.patches.maker import remix_magnitudes
from vocsep.patches.sampling import Augmentation

# Silent or audible: squares of magnitudes below 1e-19 vanish in float32.
magnitude_pairs = numpy_strategies.arrays(
    np.float32, (2, 2, 1, 3, 4), elements=st.just(0.0) | st.floats(2.0**-20, 1000, width=32)
)


def random_cosines(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.cos(torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 * np.pi)


@settings(deadline=None)
@given(pair=magnitude_pairs, seed=st.integers(0, 1000))
def test_remixed_magnitude_lies_between_difference_and_sum(pair: Array, seed: int) -> None:
    vocals, accompaniment = torch.from_numpy(pair)
    mixed = remix_magnitudes(vocals, accompaniment, random_cosines((2, 1, 3, 4), seed))
    assert mixed.dtype == torch.float32
    assert mixed.shape == vocals.shape
    # The root halves the digits of V^2 + A^2 - 2 V A where V and A are nearly equal.
    rounding = 2e-3 * (vocals + accompaniment)
    assert (mixed >= (vocals - accompaniment).abs() - rounding).all()
    assert (mixed <= vocals + accompaniment + rounding).all()


@settings(deadline=None)
@given(pair=magnitude_pairs, seed=st.integers(0, 1000))
def test_remix_with_silence_is_the_other_source(pair: Array, seed: int) -> None:
    source = torch.from_numpy(pair[0])
    cosines = random_cosines((2, 1, 3, 4), seed)
    for mixed in (
        remix_magnitudes(source, torch.zeros_like(source), cosines),
        remix_magnitudes(torch.zeros_like(source), source, cosines),
    ):
        torch.testing.assert_close(mixed, source, rtol=1e-6, atol=0)


def test_remix_with_phases_in_step_is_the_sum_and_against_each_other_the_difference() -> None:
    vocals, accompaniment = torch.tensor([3.0]), torch.tensor([4.0])
    for cosine, expected in ((1.0, 7.0), (-1.0, 1.0), (0.0, 5.0)):
        mixed = remix_magnitudes(vocals, accompaniment, torch.tensor([cosine]))
        assert float(mixed) == pytest.approx(expected, rel=1e-5)


def test_sources_that_cancel_each_other_leave_silence_and_no_nan() -> None:
    torch.manual_seed(0)
    vocals = torch.rand(1, 1, 200, 200) * 100
    # Equal but for the last digits, where rounding decides which side of zero the power comes out on.
    accompaniment = vocals * (1 + 1e-7 * torch.randint(-3, 4, vocals.shape))
    mixed = remix_magnitudes(vocals, accompaniment, torch.full_like(vocals, -1.0))
    assert torch.isfinite(mixed).all()
    assert mixed.max() < 0.5


@pytest.fixture(scope="module")
def constant_mixes(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Patches of 64 frames and bins of remixes of vocals 3 and accompaniment 4 and 8 (left and right)."""
    levels = {"vocals": (3, 3), "accompaniment": (4, 8), "mixture": (1, 1)}
    values = {
        name: [np.broadcast_to(np.array(both, np.float32)[:, None, None], (2, 64, 64))] for name, both in levels.items()
    }
    store = make_store(tmp_path_factory.mktemp("stores") / "store.zarr", (Made(64, channels=2),), values=values)
    only_remix = Augmentation(remix=1, gain=0, swap=0, pitch=0, tempo=0)
    drawing = sampler(store, only_remix, batch_size=50, frames=64)
    return maker(store, "host", 2, frames=64, with_accompaniment=True).make(drawing.draw(0))


def test_mean_power_of_remixes_is_the_sum_of_the_powers(constant_mixes: Batch) -> None:
    power = constant_mixes.mixture[:, 0].double() ** 2
    # 2 V A cos(phi) has a standard deviation of sqrt(2) V A.
    deviation = np.sqrt(2) * 12
    assert abs(float(power.mean()) - 25) < 4 * deviation / np.sqrt(power.numel())
    assert abs(float(power.std()) - deviation) < 0.1


def test_phases_of_remixes_are_uniform_common_to_the_channels_and_new_for_each_item_frame_and_bin(
    constant_mixes: Batch,
) -> None:
    assert constant_mixes.accompaniment is not None
    cosines = cosines_of(constant_mixes.mixture, constant_mixes.vocals, constant_mixes.accompaniment)
    np.testing.assert_allclose(cosines[:, 0], cosines[:, 1], rtol=0, atol=1e-5)
    shares = np.histogram(np.arccos(np.clip(cosines[:, 0], -1, 1)), bins=8, range=(0, np.pi))[0]
    expected = shares.sum() / 8
    assert ((shares - expected) ** 2 / expected).sum() < 24.3  # 1 true case in 1000 is beyond
    lines = cosines[:, 0].reshape(-1, 64)
    for shifted in (np.roll(cosines[:, 0], 1, axis=axis).reshape(-1, 64) for axis in (0, 1, 2)):
        assert abs(np.corrcoef(lines.ravel(), shifted.ravel())[0, 1]) < 4 / np.sqrt(lines.size)


def test_patch_larger_than_the_table_of_phases_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", (Made(5),))
    with pytest.raises(ValueError, match=r"2000000 x 3"):
        maker(store, frames=2_000_000)
