"""Pictures of a report: every song between floor and ceiling, and SDR over time."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vocsep.evaluation.scores import SOURCES, SongScores, finite
from vocsep.spectrograms.plot import save_figure

COLORS = {
    "mixture": "tab:gray",
    "model": "tab:blue",
    "champion": "tab:orange",
    "against": "tab:orange",
    "irm1": "tab:green",
}


def plot_songs(path: Path, songs: Sequence[SongScores]) -> None:
    """Median SDR of every song, in the given order, best on top, with the distribution over songs above it."""
    rows = [row for row in COLORS if any(row in song.rows for song in songs)]
    figure = Figure(figsize=(12, max(4.0, 0.26 * len(songs) + 2.6)), layout="tight")
    axes = figure.subplots(2, 2, sharex="col", height_ratios=[1.2, max(2.0, 0.26 * len(songs))])
    for column, source in enumerate(SOURCES):
        above, below = axes[:, column]
        for position, row in enumerate(rows):
            medians = [song.median(row, source, "SDR") for song in songs]
            counted = finite(medians)
            if len(counted):
                box = above.boxplot(
                    [counted], orientation="horizontal", positions=[position], widths=0.6, patch_artist=True
                )
                box["boxes"][0].set_facecolor(COLORS[row])
            below.plot(medians, range(len(songs)), "o", color=COLORS[row], label=row)
        above.set_yticks(range(len(rows)), rows, fontsize=8)
        below.set_xlabel(f"{source} SDR in dB (median of 1-s frames)")
        below.grid(axis="x", alpha=0.3)
        below.invert_yaxis()
        labels = [song.name[:40] if column == 0 else "" for song in songs]
        below.set_yticks(range(len(songs)), labels, fontsize=8, parse_math=False)  # which a dollar sign would start
    save_figure(figure, path, dpi=100)


def plot_over_time(path: Path, songs: dict[str, SongScores]) -> None:
    """Vocals SDR over time of some songs, by title."""
    figure = Figure(figsize=(9, 2.4 * max(1, len(songs))), layout="tight")
    axes = figure.subplots(max(1, len(songs)), 1, squeeze=False)
    for axis, (title, song) in zip(axes[:, 0], songs.items(), strict=False):
        for row in COLORS:
            if row in song.rows:
                axis.plot(song.rows[row]["vocals"]["SDR"], "o-", markersize=3, color=COLORS[row], label=row)
        axis.set_title(f"{title}: {song.name}", fontsize=9, parse_math=False)
        axis.set_ylabel("vocals SDR, dB")
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("seconds")
    if songs:
        axes[0, 0].legend(fontsize=8)
    save_figure(figure, path, dpi=100)
