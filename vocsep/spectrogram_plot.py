"""Drawing magnitude spectrograms above each other: dB on one colour scale, axes in seconds and Hz."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import numpy.typing as npt
from matplotlib import pyplot

DYNAMIC_RANGE_DB = 70.0


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
    figure, axes = pyplot.subplots(
        len(spectra), 1, figsize=(10, 2.5 * len(spectra)), sharex=True, squeeze=False, layout="constrained"
    )
    top = max(float(spectrum.max(initial=0.0)) for spectrum in spectra.values()) or 1.0
    floor = top * 10 ** (-DYNAMIC_RANGE_DB / 20)
    for axis, (name, spectrum) in zip(axes[:, 0], spectra.items(), strict=True):
        image = axis.imshow(
            20 * np.log10(np.maximum(spectrum, floor) / top).T,
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
    figure.colorbar(image, ax=axes, label="dB", pad=0.01, aspect=40)
    if title is not None:
        # A dollar sign would start mathematics.
        figure.suptitle(title, fontsize=12, parse_math=False)
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(path, dpi=dpi)
    pyplot.close(figure)
