"""BSSEval v4 (SDR, ISR, SIR, SAR per frame): exact, fast, and in bounded memory. Needs only numpy and scipy.

An estimate is split into its reference, a spatial error, interference and artifacts by projecting it, with
filters of `filter_length` taps that hold for the whole song, first on its own reference, then on all of them.
The four ratios compare the energies of those parts, frame by frame.

- E. Vincent, R. Gribonval, C. Févotte, "Performance measurement in blind audio source separation", IEEE
  Trans. Audio, Speech and Language Processing 14(4), 2006: the decomposition.
- F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018: version 4,
  one set of filters per song instead of one per frame.
- museval (`museval.metrics.bss_eval`): the reference implementation, with whose values and rules this agrees.

How: correlations up to the filter's lags come from short FFTs added up over the song; Cholesky factors,
shared by all estimates, solve the normal equations; each frame is filtered by overlap-save, and only energies
are kept. Besides the signals, memory holds the normal equations, `(sources * channels * filter_length)**2`
float64, and some short blocks.

museval's rules, kept here:

- Frame t is samples `t * hop` to `t * hop + window`; an incomplete last frame is left out; a song not longer
  than a window is one frame.
- A source is silent in a frame if its channels add up to zero in every sample. One silent reference or
  estimate makes the frame NaN for all sources. A source silent in the whole song thus makes every frame NaN
  (museval raises there).
- A ratio to exactly no distortion is +inf.
- Filters start from rest in every frame, and their tail beyond the frame counts.
- Nothing is rescaled: an estimate at the wrong level scores as badly as it sounds.

Songs of up to 12 s take their filters from `vocsep.bsseval_short`, by museval's own arithmetic. Two cases where
museval's figures hang on its rounding errors, so that those of longer songs differ:

- Above 100 dB nothing but rounding is left to measure. An estimate that is a mixture of the references (the
  song itself) has no artifacts, and a SAR near 120 dB in museval; an estimate equal to its reference has an
  SDR near 300 dB or inf there, and inf here.
- References that are dependent to double precision: mono stored as stereo, or bands without any energy. What
  the filters do there is barely determined, and cuts at frame borders excite it. In decoded music museval's
  ISR, SIR and SAR then waver by up to some thousandths of a dB; in noise synthesized with such bands they are
  arbitrary. Here filters are solved to extended precision (see `_solve`). SDR never depends on them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from storage.errors import InvalidInput
from vocsep.metrics import bsseval_short

Floats = NDArray[np.float64]
Spectra = NDArray[np.complex128]
Extended = NDArray[np.longdouble]
Waveforms = NDArray[np.floating[Any]]

METRICS = ("SDR", "ISR", "SIR", "SAR")

FFT_LENGTH = 8192
"""Samples per FFT, at least; changes speed and memory, not results."""
REFINEMENTS = 2
"""Corrections of the filters. On MUSDB18 two leave 1e-7 dB of error, and 2e-5 dB in the worst songs."""
LOUDEST = 1e30
"""Samples beyond this are taken for a mistake; their energy would soon overflow."""
EPS = float(np.finfo(np.float64).eps)
"""museval's load on the diagonal of the normal equations; it matters for signals near 1e-7 and below."""


def bss_eval(references: Waveforms, estimates: Waveforms, *, window: int, hop: int, filter_length: int = 512) -> Floats:
    """Score estimates against their references, as `museval.metrics.bss_eval` does by default.

    Parameters
    ----------
    references
        True sources, `(sources, channels, samples)`, float32 or float64; never changed.
    estimates
        The same shape, in the same order: no permutation is searched.
    window
        Frame length in samples; museval's custom is one second.
    hop
        Samples from one frame's start to the next.
    filter_length
        Taps of the distortion filters.

    Returns
    -------
    measures
        SDR, ISR, SIR and SAR in dB, `(4, sources, frames)` float64; NaN where any source is silent. They compare the
        reference with everything that differs from it; the reference with its own filtering error; the filtered
        reference with what the other references explain; and what all references explain with the rest.

    Raises
    ------
    UserError
        Shapes differ, axes look swapped, there are no samples, NaN or Inf, or a length is below 1.

    Examples
    --------
    >>> song = np.random.default_rng(0).standard_normal((2, 2, 44100))
    >>> bss_eval(song, 0.5 * song, window=22050, hop=22050)[0].round(2)
    array([[6.02, 6.02],
           [6.02, 6.02]])
    """
    return bss_eval_each(references, [estimates], window=window, hop=hop, filter_length=filter_length)[0]


def bss_eval_each(
    references: Waveforms, estimates: Sequence[Waveforms], *, window: int, hop: int, filter_length: int = 512
) -> list[Floats]:
    """`bss_eval` of each of several estimates of one song; of a short song they share the costly equations."""
    for one in estimates:
        check_signals(references, one, window, hop, filter_length)
    found = []
    for one in estimates:
        sdr = frame_sdr(references, one, window=window, hop=hop)
        found.append(np.full((4, *sdr.shape), np.nan))
        found[-1][0] = sdr
    heard = [(one, measures) for one, measures in zip(estimates, found, strict=True) if not np.isnan(measures[0]).all()]
    frames = _frames(references.shape[-1], window, hop)
    filters = _filters(references, [one for one, _ in heard], filter_length)
    for (one, measures), own_and_everything in zip(heard, filters, strict=True):
        projector = _Projector(*own_and_everything, frames[0].stop)
        for t in np.flatnonzero(~np.isnan(measures[0, 0])):
            measures[1:, :, t] = projector.measure(references[..., frames[t]], one[..., frames[t]])
    return found


def frame_sdr(references: Waveforms, estimates: Waveforms, *, window: int, hop: int) -> Floats:
    """Only the SDR of `bss_eval`, for a small part of its time: in version 4 the filters cancel out of it.

    Takes the same, and raises the same errors. Returns `10 log10(|reference|^2 / |estimate - reference|^2)` in dB,
    `(sources, frames)`; NaN where any source is silent.
    """
    check_signals(references, estimates, window, hop)
    frames = _frames(references.shape[-1], window, hop)
    sdr = np.full((references.shape[0], len(frames)), np.nan)
    for t, span in enumerate(frames):
        if _audible(references, span) and _audible(estimates, span):
            sdr[:, t] = _sdr(references, estimates, span)
    return sdr


def check_signals(references: Waveforms, estimates: Waveforms, window: int, hop: int, filter_length: int = 1) -> None:
    """Raise UserError for input that has no measure."""
    lengths = {"window": window, "hop": hop, "filter_length": filter_length}
    for name, length in lengths.items():
        if not isinstance(length, int | np.integer) or length < 1:
            raise InvalidInput(f"{name} is {length}: give a whole number of samples, 1 or more")
    if references.shape != estimates.shape:
        raise InvalidInput(
            f"references {references.shape} and estimates {estimates.shape} differ in shape: "
            "both must be (sources, channels, samples), cut to the same length"
        )
    if references.ndim != 3:
        raise InvalidInput(f"references have shape {references.shape}: expected (sources, channels, samples)")
    sources, channels, samples = references.shape
    if 0 in references.shape:
        raise InvalidInput(f"references have shape {references.shape}: there is nothing to score")
    if channels > samples:
        raise InvalidInput(
            f"{channels} channels of {samples} samples: the axes look swapped, expected (sources, channels, samples)"
        )
    for name, waveforms in (("references", references), ("estimates", estimates)):
        if waveforms.dtype not in (np.float32, np.float64):
            raise InvalidInput(f"{name} are {waveforms.dtype}: expected float32 or float64 samples")
        for source in range(sources):
            for part in _blocks(slice(0, samples)):
                block = waveforms[source, :, part]
                if not (block.min() > -LOUDEST and block.max() < LOUDEST):
                    raise InvalidInput(
                        f"{name}[{source}] has NaN, Inf or a value beyond {LOUDEST:g} "
                        f"between samples {part.start} and {part.stop}: nothing can be measured"
                    )


def _frames(samples: int, window: int, hop: int) -> list[slice]:
    """Each frame's samples."""
    if window >= samples:
        return [slice(0, samples)]
    return [slice(start, start + window) for start in range(0, samples - window + 1, hop)]


def _blocks(span: slice) -> Iterator[slice]:
    """Cut a span into pieces that stay in the processor's cache."""
    for start in range(span.start, span.stop, FFT_LENGTH):
        yield slice(start, min(start + FFT_LENGTH, span.stop))


def _audible(waveforms: Waveforms, span: slice) -> bool:
    """Whether the channels of every source add up to more than zeros somewhere in the span."""
    return all(any(source[:, part].sum(axis=0).any() for part in _blocks(span)) for source in waveforms)


def _energy(signals: Floats) -> Floats:
    """Sum of squares over the last two axes."""
    energy: Floats = np.einsum("...cn,...cn->...", signals, signals)
    return energy


def _decibels(signal: Floats, distortion: Floats) -> Floats:
    """Return the ratio of two energies in dB, +inf where there is no distortion."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distortion == 0, np.inf, 10 * np.log10(signal / distortion))


def _sdr(references: Waveforms, estimates: Waveforms, span: slice) -> Floats:
    """SDR of each source over one span, from the samples alone."""
    signal = np.zeros(references.shape[0])
    distortion = np.zeros_like(signal)
    for part in _blocks(span):
        reference = references[..., part].astype(np.float64)
        signal += _energy(reference)
        distortion += _energy(estimates[..., part] - reference)
    return _decibels(signal, distortion)


def _correlations(references: Waveforms, estimates: Waveforms, taps: int) -> Extended:
    """Correlate every reference channel with every reference and estimate channel over the whole song.

    Returns `r[a, b, taps - 1 + lag] = sum_n x_a[n] x_b[n + lag]` for `|lag| < taps`, with a over reference
    channels and b over reference, then estimate channels.
    """
    signals = [*_channels(references), *_channels(estimates)]
    count = len(signals) // 2
    size = scipy.fft.next_fast_len(max(FFT_LENGTH, 8 * taps), real=True)
    step = size - 2 * (taps - 1)
    total = np.zeros((count, 2 * count, size // 2 + 1), np.complex128)
    wide = np.zeros((2 * count, size))
    near = np.zeros((count, size))
    for start in range(0, references.shape[-1], step):
        _fill(wide, signals, start - taps + 1)
        near[:, :step] = wide[:count, taps - 1 : taps - 1 + step]
        spectra = scipy.fft.rfft(wide)
        conjugate = scipy.fft.rfft(near).conj()
        for a in range(count):
            total[a, a:] += conjugate[a] * spectra[a:]
    r = np.empty((count, 2 * count, 2 * taps - 1), np.longdouble)
    for a in range(count):
        r[a, a:] = scipy.fft.irfft(total[a, a:].astype(np.clongdouble), size)[..., : 2 * taps - 1]
        r[a + 1 :, a] = r[a, a + 1 : count, ::-1]
    return r


def _channels(waveforms: Waveforms) -> list[Waveforms]:
    """All channels of all sources, as views even where memory has another order."""
    return [channel for source in waveforms for channel in source]


def _fill(buffer: Floats, signals: Sequence[Waveforms], first: int) -> None:
    """Copy samples `first, first + 1, ...` of each signal into its row, zeros outside the signal."""
    size = buffer.shape[-1]
    begin = min(max(-first, 0), size)
    end = min(max(len(signals[0]) - first, begin), size)
    buffer[:, :begin] = 0
    buffer[:, end:] = 0
    for row, signal in zip(buffer, signals, strict=True):
        row[begin:end] = signal[first + begin : first + end]


def _filters(references: Waveforms, estimates: Sequence[Waveforms], taps: int) -> Iterable[tuple[Floats, Floats]]:
    """Least-squares filters from references to each of some estimates over the whole song; see `_long_song_filters`."""
    if bsseval_short.is_short(references.shape[-1], taps):
        return bsseval_short.short_song_filters(references, estimates, taps)
    return (_long_song_filters(references, one, taps) for one in estimates)


def _long_song_filters(references: Waveforms, estimates: Waveforms, taps: int) -> tuple[Floats, Floats]:
    """Least-squares filters from references to estimates over the whole song.

    Returns the filters from each source's own channels, `(source, to channel, from channel, taps)`, and those
    from all references, `(to source and channel, from source and channel, taps)`.
    """
    sources, channels, _ = references.shape
    among, targets = np.split(_correlations(references, estimates, taps), 2, axis=1)
    targets = np.ascontiguousarray(targets.swapaxes(0, 1)[..., taps - 1 :])
    groups = [slice(first, first + channels) for first in range(0, sources * channels, channels)]
    own = np.stack([_solve(among[group, group], targets[group, group]) for group in groups])
    return own, own[0] if sources == 1 else _solve(among, targets)


def _solve(among: Extended, targets: Extended) -> Floats:
    """Filters `(to, from, taps)` from the correlations among references and of estimates with references.

    Music without treble, or mono stored as stereo, makes the normal equations singular to double precision,
    and cuts at frame borders excite just those weak directions. So the Cholesky factor, of slightly loaded
    equations, gives a first solution, and residuals of the true equations, in extended precision, correct it.
    (Where numpy's longdouble is float64, the result is about as exact as museval's.)
    """
    taps = targets.shape[-1]
    size = scipy.fft.next_fast_len(2 * taps - 1, real=True)
    spectra = scipy.fft.rfft(among, size)
    factor = _factor(among)
    filters = np.zeros_like(targets)
    residual = targets
    for step in range(REFINEMENTS + 1):
        if step:
            products = np.einsum("abf,ebf->eaf", spectra, scipy.fft.rfft(filters, size))
            residual = targets - scipy.fft.irfft(products, size)[..., taps - 1 : 2 * taps - 1] - EPS * filters
        right = residual.astype(np.float64).reshape(len(targets), -1).T
        filters += scipy.linalg.cho_solve(factor, right, check_finite=False).T.reshape(targets.shape)
    return filters.astype(np.float64)


def _factor(among: Extended) -> tuple[Floats, bool]:
    """Cholesky factor of the normal equations, the diagonal loaded until they are positive definite."""
    count, taps = len(among), (among.shape[-1] + 1) // 2
    r = among[..., ::-1].astype(np.float64)
    delays = sliding_window_view(r, taps, axis=-1)[..., ::-1, :].swapaxes(1, 2)
    load = 1e-15 * max(r[a, a, taps - 1] for a in range(count))
    while True:
        gram = np.array(delays).reshape(count * taps, count * taps)
        gram.flat[:: len(gram) + 1] += EPS + load
        try:
            # Symmetric, so the transpose is the same matrix in the order that LAPACK takes without a copy.
            factor: tuple[Floats, bool] = scipy.linalg.cho_factor(
                gram.T, lower=True, overwrite_a=True, check_finite=False
            )
        except np.linalg.LinAlgError:
            load *= 10
        else:
            return factor


class _Projector:
    """The filters of one song, ready to measure frames of one length."""

    def __init__(self, own: Floats, everything: Floats, samples: int) -> None:
        """Take the filters of `_filters` and the frame's samples."""
        self.history = own.shape[-1] - 1
        self.outputs = samples + self.history
        pieces = -(-self.outputs // max(FFT_LENGTH - self.history, 7 * self.history))
        self.step = -(-self.outputs // pieces)
        self.size = scipy.fft.next_fast_len(self.step + self.history, real=True)
        self.own: Spectra = scipy.fft.rfft(own, self.size)
        self.everything: Spectra = scipy.fft.rfft(everything, self.size)

    def measure(self, references: Waveforms, estimates: Waveforms) -> Floats:
        """Return ISR, SIR and SAR in dB, `(3, sources)`, of one frame's `(sources, channels, samples)`."""
        sources, channels, _ = references.shape
        count = sources * channels
        inputs, targets = np.empty((count, self.size)), np.empty((count, self.step))
        spectra = np.empty((2, count, self.size // 2 + 1), np.complex128)
        energies = np.zeros((6, count))  # of what ISR, SIR and SAR divide, in turn
        for start in range(0, self.outputs, self.step):
            _fill(inputs, _channels(references), start - self.history)
            _fill(targets, _channels(estimates), start)
            x = scipy.fft.rfft(inputs)
            for source in range(sources):
                group = slice(source * channels, (source + 1) * channels)
                _mix(self.own[source], x[group], spectra[0, group])
            _mix(self.everything, x, spectra[1])
            valid = slice(self.history, self.history + self.step)
            filtered, explained = scipy.fft.irfft(spectra, self.size)[..., valid]
            true = inputs[:, valid]
            parts = (true, filtered - true, filtered, explained - filtered, explained, targets - explained)
            for energy, part in zip(energies, parts, strict=True):
                energy += np.vecdot(part, part)
        ratios = energies.reshape(3, 2, sources, channels).sum(axis=-1)
        return _decibels(ratios[:, 0], ratios[:, 1])


def _mix(filters: Spectra, inputs: Spectra, outputs: Spectra) -> None:
    """Set each output to the sum of all filtered inputs; filters are `(to, from, bins)`."""
    np.multiply(filters[:, 0], inputs[0], out=outputs)
    for source in range(1, len(inputs)):
        outputs += filters[:, source] * inputs[source]
