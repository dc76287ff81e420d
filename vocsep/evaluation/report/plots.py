"""Pictures of a report: every song between floor and ceiling, and SDR over time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vocsep.evaluation.rows import ROW_TITLES
from vocsep.evaluation.scores import SOURCES, SongScores, finite
from vocsep.spectrograms.plot import save_figure

COLORS = {
    "mixture": "tab:gray",
    "model": "tab:blue",
    "champion": "tab:orange",
    "against": "tab:orange",
    "bundled": "tab:purple",
    "irm1": "tab:green",
}
# In dB. Values beyond (an almost silent second scores -150 dB) are drawn at the edge.
LOWEST, HIGHEST = -20.0, 30.0
_EDGE = f"beyond {LOWEST:g} and {HIGHEST:g} dB values are drawn at the edge"


def plot_songs(path: Path, songs: Sequence[SongScores]) -> None:
    """Median SDR of every song, in the given order, best on top, with the distribution over songs above it."""
    rows = [row for row in COLORS if any(row in song.rows for song in songs)]
    heights = (0.3 * max(1, len(rows)) + 0.2, max(1.5, 0.27 * len(songs)))
    figure = Figure(figsize=(9, sum(heights) + 1.4), layout="tight")
    axes = figure.subplots(2, 2, sharex="col", height_ratios=heights)
    for column, source in enumerate(SOURCES):
        above, below = axes[:, column]
        beyond = False
        for position, row in enumerate(rows):
            medians = [song.median(row, source, "SDR") for song in songs]
            shown, is_cut = within_limits(medians)
            beyond |= is_cut
            counted = finite(shown)
            if len(counted):
                box = above.boxplot(
                    [counted], orientation="horizontal", positions=[position], widths=0.6, patch_artist=True
                )
                box["boxes"][0].set_facecolor(COLORS[row])
            below.plot(shown, range(len(songs)), "o", markersize=4, color=COLORS[row], label=ROW_TITLES[row])
        above.set_yticks(range(len(rows)), [ROW_TITLES[row] if column == 0 else "" for row in rows])
        below.set_xlabel(f"{source} SDR in dB{f' ({_EDGE})' if beyond else ''}")
        below.grid(axis="x", alpha=0.3)
        below.invert_yaxis()
        labels = [song.name[:32] if column == 0 else "" for song in songs]
        below.set_yticks(range(len(songs)), labels, parse_math=False)  # which a dollar sign would start
    save_figure(figure, path, dpi=150)


def plot_over_time(path: Path, songs: dict[str, SongScores]) -> None:
    """Vocals SDR over time of some songs, by title, in the same colors as the other picture."""
    figure = Figure(figsize=(9, 2.6 * max(1, len(songs))), layout="tight")
    axes = figure.subplots(max(1, len(songs)), 1, squeeze=False)
    for axis, (title, song) in zip(axes[:, 0], songs.items(), strict=False):
        beyond = False
        for row in COLORS:
            if row in song.rows:
                shown, is_cut = within_limits(song.rows[row]["vocals"]["SDR"])
                beyond |= is_cut
                axis.plot(shown, "o-", markersize=3, color=COLORS[row], label=ROW_TITLES[row])
        axis.set_title(f"{title}: {song.name[:60]}", fontsize=11, parse_math=False)
        axis.set_ylabel("vocals SDR, dB")
        axis.set_xlabel(f"seconds{f' ({_EDGE})' if beyond else ''}")
        axis.grid(alpha=0.3)
    if songs:
        axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(figure, path, dpi=150)


def within_limits(values: Sequence[float]) -> tuple[list[float], bool]:
    """Values cut to the limits (NaN stays), and whether any finite one was."""
    cut = np.clip(values, LOWEST, HIGHEST)
    found = finite(values)
    return cut.tolist(), bool(((found < LOWEST) | (found > HIGHEST)).any())
