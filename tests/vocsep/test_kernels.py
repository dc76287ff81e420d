"""Magnitudes as they are stored, and patches made of them: every number, and what must not be hidden."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vocsep.kernels import StoredRows, fill_magnitudes, fill_patch

Array = NDArray[Any]


def filled(stored: Array, gain: float = 1.0, remixed_with: Array | None = None, cosine: float = 0.0) -> Array:
    """One patch `(1, frames, bins)` of the given rows, or its mix with others."""
    frames, bins = stored.shape
    zero, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)

    def source(rows: Array) -> StoredRows:
        kept, level = one * frames, np.array([gain], dtype=np.float32)
        return StoredRows(rows, zero[:, None], kept, kept, one * bins, one * bins, level)

    vocals, mixture = np.full((2, 1, 1, frames, bins), 7, dtype=np.float32)
    rest = source(stored if remixed_with is None else remixed_with)
    cosines, remixed = np.full(stored.size, cosine, dtype=np.float32), np.array([remixed_with is not None])
    fill_patch(0, source(stored), rest, source(stored), remixed, zero, cosines, vocals, vocals[:0], mixture)
    out: Array = (vocals if remixed_with is None else mixture)[0]
    return out


def test_every_number_of_float16_is_read_as_it_is() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(64, 1024)
    numbers = bits.view(np.float16)
    found = filled(bits)[0]
    # To the bit, the sign of zero included; of NaN that it is one.
    expected = numbers.astype(np.float32)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    known = ~np.isnan(expected)
    assert np.array_equal(found[known].view(np.uint32), expected[known].view(np.uint32))


def test_float32_is_read_as_it_is() -> None:
    rows = np.random.default_rng(0).gamma(0.5, 4, (9, 33)).astype(np.float32)
    assert np.array_equal(filled(rows)[0], rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_in_a_source_is_not_finite_in_the_mix(bad: float) -> None:
    rows, others = np.ones((2, 4, 5), dtype=np.float32)
    rows[2, 3] = bad
    mix = filled(rows, remixed_with=others, cosine=-1.0)[0]
    assert not np.isfinite(mix[2, 3])
    mix[2, 3] = 0
    assert np.isfinite(mix).all()


def test_mix_is_that_of_torch() -> None:
    random = np.random.default_rng(1)
    vocals, others = random.gamma(0.5, 4, (2, 40, 64)).astype(np.float32)
    for cosine in (-1.0, -0.3, 0.0, 0.7, 1.0):
        a, v = torch.from_numpy(others), torch.from_numpy(vocals)
        expected = (a.double() ** 2 + v.double() ** 2 + 2 * cosine * a.double() * v.double()).clamp(min=0).sqrt()
        mix = torch.from_numpy(filled(vocals, remixed_with=others, cosine=cosine)[0])
        torch.testing.assert_close(mix.double(), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("first_bin", [0, 1])
def test_magnitudes_are_those_of_mixture_vocals_and_their_difference(first_bin: int) -> None:
    random = np.random.default_rng(2)
    parts = random.standard_normal((2, 2, 2, 7, 33)) * 10.0 ** random.uniform(-9, 3, (2, 1, 2, 7, 33))
    spectra = (parts[0] + 1j * parts[1]).astype(np.complex64)
    bits = np.empty((3, 2, 7, 32), dtype=np.uint16)
    assert fill_magnitudes(spectra.view(np.float32), first_bin, bits)
    mixture, vocals = spectra[..., first_bin : first_bin + 32].astype(np.complex128)
    for found, spectrum in zip(bits.view(np.float16), (mixture, vocals, mixture - vocals), strict=True):
        # Half a step of float16, and what float32 leaves of a difference of large numbers.
        lost = 1e-6 * (np.abs(mixture) + np.abs(vocals))
        assert (np.abs(found - np.abs(spectrum)) <= 2**-11 * np.abs(spectrum) + 2**-25 + lost).all()


@pytest.mark.parametrize("source", [0, 1])
@pytest.mark.parametrize("bad", [65520, np.nan, np.inf, 1j * np.nan, -1e30])
def test_magnitudes_that_float16_cannot_hold_are_told(bad: complex, source: int) -> None:
    spectra = np.ones((2, 1, 3, 5), dtype=np.complex64)
    bits = np.empty((3, 1, 3, 5), dtype=np.uint16)
    assert fill_magnitudes(spectra.view(np.float32), 0, bits)
    spectra[source, 0, 1, 2] = bad
    assert not fill_magnitudes(spectra.view(np.float32), 0, bits)


def test_where_compiled_code_can_be_kept_nowhere_it_runs_all_the_same(tmp_path: Path) -> None:
    # As root no folder is read-only: numba is told to look for none.
    code = (
        "import numba.core.caching, numpy; numba.core.caching.CacheImpl._locator_classes = []\n"
        "from vocsep.kernels import fill_magnitudes\n"
        "bits = numpy.empty((3, 1, 2, 4), dtype='uint16')\n"
        "assert fill_magnitudes(numpy.ones((2, 1, 2, 8), dtype='float32'), 0, bits)\n"
        "print(bits.view('float16')[:2].min() ** 2, bits[2].max())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert [float(word) for word in result.stdout.split()] == [pytest.approx(2, rel=1e-3), 0]
