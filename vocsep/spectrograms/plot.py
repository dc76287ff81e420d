"""Drawing magnitude spectrograms above each other: dB on one color scale, axes in seconds and Hz."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from vocsep.arrays import Waveform
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import features

EXCERPT_SECONDS = 12.0
DYNAMIC_RANGE_DB = 70.0

# Inches. Room that is reckoned by hand: matplotlib's own layouts draw everything once more to find it.
WIDTH, ROW_HEIGHT = 10.0, 2.5
LEFT, RIGHT, BOTTOM, TOP, GAP = 0.85, 1.0, 0.5, 0.3, 0.3
HEADING = 0.35


def draw_spectrograms(
    path: Path,
    spectra: Mapping[str, npt.NDArray[np.floating]],
    *,
    seconds: tuple[float, float],
    hertz: tuple[float, float],
    title: str | None = None,
    dpi: int = 90,
) -> None:
    """Draw spectrograms of one stretch of time; 0 dB is the loudest value of all.

    Parameters
    ----------
    spectra
        Title to magnitudes `(columns, bins)`, not negative.
    seconds, hertz
        The stretch of time and the band that the pictures show.
    """
    height = ROW_HEIGHT * len(spectra)
    figure = Figure(figsize=(WIDTH, height))
    bottom, top = BOTTOM / height, 1 - (TOP + (HEADING if title is not None else 0.0)) / height
    gap = GAP / (height * (top - bottom) / len(spectra) - GAP)
    right = 1 - RIGHT / WIDTH
    room = {"left": LEFT / WIDTH, "right": right, "bottom": bottom, "top": top, "hspace": gap}
    axes = figure.subplots(len(spectra), 1, sharex=True, squeeze=False, gridspec_kw=room)
    loudest = max(float(spectrum.max(initial=0.0)) for spectrum in spectra.values()) or 1.0
    floor = loudest * 10 ** (-DYNAMIC_RANGE_DB / 20)
    for axis, (name, spectrum) in zip(axes[:, 0], spectra.items(), strict=True):
        image = axis.imshow(
            20 * np.log10(np.maximum(spectrum, floor) / loudest).T,
            origin="lower",
            aspect="auto",
            extent=(*seconds, *hertz),
            vmin=-DYNAMIC_RANGE_DB,
            vmax=0,
            cmap="magma",
        )
        axis.set_title(name, fontsize=9)
        axis.set_ylabel("Hz")
    axes[-1, 0].set_xlabel("seconds")
    scale = figure.add_axes((right + 0.01, bottom, 0.012, top - bottom))
    figure.colorbar(image, cax=scale, label="dB")
    if title is not None:
        # A dollar sign would start mathematics.
        figure.suptitle(title, fontsize=12, parse_math=False)
    save_figure(figure, path, dpi)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture; letters that the font lacks are drawn as boxes, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, dpi=dpi)


def loudest_span(waveform: Waveform, sample_rate: int) -> slice:
    """The samples of the excerpt's length that hold most energy of `(channels, samples)`."""
    samples = waveform.shape[1]
    length = min(samples, round(EXCERPT_SECONDS * sample_rate))
    energy = np.concatenate([[0.0], np.cumsum((waveform.astype(np.float64) ** 2).sum(axis=0))])
    start = int(np.argmax(energy[length:] - energy[: samples - length + 1]))
    return slice(start, start + length)


def plot_spectrograms(
    path: Path, waveforms: dict[str, Waveform], sample_rate: int, config: SpectrogramConfig, start_seconds: float = 0.0
) -> None:
    """Draw magnitude spectrograms above each other, in dB on one scale, with axes in seconds and Hz.

    Parameters
    ----------
    waveforms
        Title to `(channels, samples)`; channels are averaged.
    config
        Band and resolution of the pictures.
    """
    spectra = {
        title: np.abs(features(waveform, sample_rate, config)).mean(axis=0) for title, waveform in waveforms.items()
    }
    frames = max(len(spectrum) for spectrum in spectra.values())
    seconds = (start_seconds, start_seconds + frames / config.frames_per_second)
    draw_spectrograms(path, spectra, seconds=seconds, hertz=(0, config.sample_rate / 2))
