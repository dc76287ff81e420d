"""Whether the stems of a song add up as their names say: no stem twice, no mix among them, and the right mixture."""

import numpy as np
import numpy.typing as npt
import scipy.fft

from storage.errors import UserError
from vocsep.arrays import Waveform
from vocsep.audio.reading import BLOCK_SAMPLES
from vocsep.datasets.songs import AudioSource, Song

# Shares of a stem's energy. What is left of a stem without others; lossy coding leaves up to 1/200.
_NOTHING = 0.01
# By which a mixture may differ from its stems: what a limiter adds, or a gain of 1.5 dB.
_MIXTURE_TOLERANCE = 10**-1.5
# Below, how much of a stem there is in another one is chance.
_HEARD = 0.01
# Below, two different tunes may well go together for a while.
_CORRELATION = 0.2
# As loud, and as much alike, as vocals and accompaniments of real songs are at no shift: 60 of MUSDB18 reach a third.
_SHIFTED_CORRELATION = 0.1
# Of the mean of this many samples, how many such means to both sides: a third of a second.
_STEP = 4
_SHIFTS = 4096
_SPECTRUM = BLOCK_SAMPLES // _STEP + _SHIFTS
# What is left of a copy that is exact but for its loudness.
_EXACT = 1e-4
# Factors by which what is called the same may be louder or softer.
_SAME = (0.8, 1.25)
_SIMILAR = (0.5, 2.0)
_MIXTURE_GAIN = 1.5


class StemSums:
    """Inner products of all files of a song, gathered block by block: they give the energy of every difference."""

    def __init__(self, song: Song) -> None:
        self._song = song
        self._mixture = song.mixture[0] if len(song.mixture) == 1 else None
        self._stems = [*song.vocals, *song.accompaniment]
        self.parts = [*self._stems, *([self._mixture] if self._mixture else [])]
        self._products = np.zeros((len(self.parts), len(self.parts)))
        # In mono: the spectrum of the products of vocals and accompaniment at every shift, and each with itself.
        self._spectrum = np.zeros(_SPECTRUM // 2 + 1, dtype=np.complex128)
        self._alone = np.zeros(2)

    def add(self, waveforms: dict[AudioSource, Waveform], shape: tuple[int, int]) -> None:
        """Add a block of every part; one channel is used for all, and zeros follow the end."""
        block = np.zeros((len(self.parts), *shape), dtype=np.float32)
        for row, part in zip(block, self.parts, strict=True):
            row[:, : waveforms[part].shape[1]] = waveforms[part]
        rows = block.reshape(len(block), -1)
        self._products += rows @ rows.T
        if self._song.accompaniment:
            steps = block[..., : shape[1] // _STEP * _STEP]
            mono = (steps.reshape(*steps.shape[:-1], -1, _STEP) @ np.ones(_STEP, np.float32)).sum(axis=1)
            self._add_shifted(mono[0], mono[1 : len(self._stems)].sum(axis=0))

    def _add_shifted(self, vocals: Waveform, accompaniment: Waveform) -> None:
        self._alone += vocals @ vocals, accompaniment @ accompaniment
        self._spectrum += scipy.fft.rfft(vocals, _SPECTRUM).conj() * scipy.fft.rfft(accompaniment, _SPECTRUM)

    def check(self) -> None:
        """Raise `UserError` if a stem is the sum of others, holds the vocals, or the mixture is another one."""
        self._check_twice()
        self._check_accompaniment()
        self._check_shifted()
        if self._mixture is not None:
            self._check_mixture(self._mixture)

    def _check_twice(self) -> None:
        """Every stem is made from all that are softer, and from all others; one that can be is counted twice.

        From the softer ones, because what holds two mixes can be made in many ways; from all, because a mix may have
        been turned down below what it is made of.
        """
        energies = self._products.diagonal()
        heard = [stem for stem in np.argsort(energies[: len(self._stems)]).tolist() if energies[stem]]
        for place, index in enumerate(heard):
            self._check_sum(index, heard[:place])
        for index in heard:
            self._check_sum(index, [stem for stem in heard if stem != index])

    def _check_sum(self, index: int, others: list[int]) -> None:
        """Raise `UserError` if a stem is one of the others, or a sum of some that are all equally loud in it."""
        energies = self._products.diagonal()
        known, wanted = self._products[np.ix_(others, others)], self._products[others, index]
        gains = np.linalg.lstsq(known, wanted, rcond=None)[0] if others else np.zeros(0)
        left = (energies[index] - gains @ wanted) / energies[index]
        used = np.flatnonzero(gains**2 * energies[others] > _NOTHING * energies[index])
        if left >= _NOTHING or not len(used):
            return
        low, high = _SAME if len(used) == 1 else _SIMILAR
        # What is turned down, or over, as a whole is a sum all the same.
        shares = gains[used] * np.sign(gains[used][0])
        if len(used) > 1:
            shares = shares / np.sqrt(abs(shares.min() * shares.max()))
        if ((low <= shares) & (shares <= high)).all() or (len(used) == 1 and left < _EXACT):
            names = " and ".join(self._stems[others[number]].path.name for number in used)
            raise UserError(
                f"{self._stems[index].path}: is {'the sum of ' if len(used) > 1 else ''}{names} "
                f"(but for {_decibels(left, 1.0)}), which would count twice; remove it, or call it accompaniment "
                "or mixture if it is that"
            )

    def _check_accompaniment(self) -> None:
        """An accompaniment that holds all of the vocals is a mixture."""
        vocals, accompaniment = self._is_vocals(), self._is_accompaniment()
        energies = self._energy(vocals), self._energy(accompaniment)
        if not all(energies):
            return
        common = vocals @ self._products @ accompaniment
        gain, correlation = common / energies[0], common / np.sqrt(energies[0] * energies[1])
        if _SIMILAR[0] <= abs(gain) <= _SIMILAR[1] and abs(correlation) > _CORRELATION:
            count = len(self._song.vocals)
            loudest = count + int(np.argmax(vocals @ self._products[:, count : len(self._stems)]))
            raise UserError(
                f"{self.parts[loudest].path}: holds the vocals too ({gain:.0%} of them), and is no accompaniment; "
                "call it mixture if it is that"
            )

    def _check_shifted(self) -> None:
        """An accompaniment that holds all of the vocals sooner or later is a mixture, too."""
        if not self._alone.all():
            return
        products = abs(scipy.fft.irfft(self._spectrum, _SPECTRUM))
        products[_SHIFTS:-_SHIFTS] = 0
        peak = int(np.argmax(products))
        shift = peak if peak < _SHIFTS else peak - _SPECTRUM
        gain, correlation = products[peak] / (self._alone[0], np.sqrt(self._alone.prod()))
        if shift and _SIMILAR[0] <= gain <= _SIMILAR[1] and correlation > _SHIFTED_CORRELATION:
            files = [stem.path for stem in self._song.accompaniment]
            place = files[0] if len(files) == 1 else files[0].parent
            raise UserError(
                f"{place}: the accompaniment contains the vocals too ({gain:.0%} of them, some {_STEP * abs(shift)} "
                f"samples {'later' if shift > 0 else 'earlier'}); call the file mixture if it is that, or remove it"
            )

    def _check_mixture(self, mixture: AudioSource) -> None:
        vocals, accompaniment = self._is_vocals(), self._is_accompaniment()
        whole = np.eye(len(self.parts))[-1]
        energies = self._energy(vocals), self._energy(whole)
        names = " and ".join(stem.path.name for stem in self._stems)
        if self._song.accompaniment:
            left = self._energy(whole - vocals - accompaniment)
            if left > _MIXTURE_TOLERANCE * energies[1]:
                raise UserError(
                    f"{mixture.path}: is not the sum of {names} (the difference is {_decibels(left, energies[1])} "
                    "of it); remove it, and their sum is the mixture, or add what is missing"
                )
        if not energies[0] or (not self._song.accompaniment and energies[0] < _HEARD * energies[1]):
            return
        gain = (whole - accompaniment) @ self._products @ vocals / energies[0]
        if not 1 / _MIXTURE_GAIN <= gain <= _MIXTURE_GAIN:
            raise UserError(
                f"{mixture.path}: does not hold {self._song.vocals[0].path.name} as it is ({gain:.0%} of it); it is "
                "another take, shifted in time, or no mixture"
            )

    def _is_vocals(self) -> npt.NDArray[np.float64]:
        return np.array([float(part in self._song.vocals) for part in self.parts])

    def _is_accompaniment(self) -> npt.NDArray[np.float64]:
        return np.array([float(part in self._song.accompaniment) for part in self.parts])

    def _energy(self, weights: npt.NDArray[np.float64]) -> float:
        """Of a weighted sum of all parts."""
        return max(0.0, float(weights @ self._products @ weights))


def _decibels(energy: float, whole: float) -> str:
    """An energy relative to that of the whole.

    >>> _decibels(0.002, 2.0)
    '-30 dB'
    """
    return f"{10 * np.log10(max(energy, 1e-12 * whole) / whole):.0f} dB" if whole else "all"
