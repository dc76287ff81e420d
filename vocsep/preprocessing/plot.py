"""A picture of one track of a store: the spectrograms of mixture, vocals and accompaniment."""

import itertools
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from storage.errors import UserError, one_line
from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.store import SpectrogramStore
from vocsep.preprocessing.config import spectrogram_config
from vocsep.spectrograms.plot import draw_spectrograms

COLUMNS = 1200
DPI = 150
MAXIMUM_CANDIDATES = 8
MAXIMUM_TITLE = 90
SUFFIXES = (".png", ".jpg", ".pdf", ".svg")


def find_track(tracks: Collection[TrackRecord], text: str) -> TrackRecord:
    """The track whose id or name is `text`, or the only one of whose id or name it is a part (case is ignored).

    Raises
    ------
    UserError
        If there is none, or there are several; some candidates are named.
    """
    for track in tracks:
        if text in (track.id, track.name):
            return track
    part = text.casefold()
    found = [track for track in tracks if part in track.name.casefold() or part in track.id.casefold()]
    if len(found) == 1:
        return found[0]
    candidates = sorted(track.name for track in found or tracks)
    shown = ", ".join(map(repr, candidates[:MAXIMUM_CANDIDATES]))
    more = f" and {len(candidates) - MAXIMUM_CANDIDATES} more" if len(candidates) > MAXIMUM_CANDIDATES else ""
    what = "fits several songs" if found else "no such song"
    raise UserError(f"{text!r}: {what}; the store has {shown}{more}" if candidates else f"{text!r}: the store is empty")


def plot_track(
    store: SpectrogramStore, track: TrackRecord, path: Path, *, start: float = 0.0, seconds: float | None = None
) -> None:
    """Draw a track's spectrograms, from `start` on, for `seconds` or to the end.

    Raises
    ------
    UserError
        If the stretch of time is outside the song, or `path` cannot be written or has a name of no known format.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: no known picture format; let the name end in {', '.join(SUFFIXES)}")
    if not math.isfinite(start) or not math.isfinite(seconds or 0.0):
        raise UserError(f"{track.name!r} has {track.seconds:.1f} s; start and seconds must be finite")
    config = spectrogram_config(store)
    first = round(start * config.frames_per_second)
    length = track.frames if seconds is None else round(seconds * config.frames_per_second)
    last = min(track.frames, first + length)
    if not 0 <= first < last:
        raise UserError(f"{track.name!r} has {track.seconds:.1f} s; nothing to draw from {start:g} s on")
    held = [name for name in SPECTROGRAMS if name in track.arrays]
    spectra = {name: reduced(store.array(track, name)[:, first:last], COLUMNS) for name in held}
    name = track.name if len(track.name) <= MAXIMUM_TITLE else f"{track.name[: MAXIMUM_TITLE - 1]}…"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_spectrograms(
            path,
            spectra,
            seconds=(first / config.frames_per_second, last / config.frames_per_second),
            hertz=config.band_hz,
            title=f"{name} ({track.split})",
            dpi=DPI,
        )
    except OSError as error:
        raise one_line(path, "written", error) from None


def reduced(spectrogram: npt.NDArray[np.generic], columns: int) -> npt.NDArray[np.float32]:
    """At most `columns` columns of a long spectrogram, a block of it in memory at a time.

    Channels are averaged; a column is the greatest of its frames, so that no short sound is lost.

    Parameters
    ----------
    spectrogram
        `(channels, frames, bins)`

    Returns
    -------
    `(columns, bins)`
    """
    frames = spectrogram.shape[1]
    edges = np.linspace(0, frames, min(columns, frames) + 1).astype(int)
    return np.stack(
        [
            spectrogram[:, first:last].astype(np.float32).mean(axis=0).max(axis=0)
            for first, last in itertools.pairwise(edges)
        ]
    )
