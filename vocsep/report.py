"""The report of an evaluation: summary.json, tracks.csv, report.md and its pictures."""

import csv
import io
import math
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

from storage.files import new_folder, write_atomically, write_json
from storage.registry import ModelVersion
from vocsep.evaluation import METRICS, ROW_TITLES, ROWS, SOURCES, SongScores, Target, summarize

COLORS = {"mixture": "tab:gray", "model": "tab:blue", "irm1": "tab:green"}


def report_folder(reports: Path, model: ModelVersion) -> Path:
    """A new folder `<reports>/<time>-<model>`."""
    name = model.path.name if model.version is None else f"model{model.version:04d}"
    return new_folder(reports, f"{datetime.now():%Y%m%d-%H%M%S}-{name}")


def write_report(folder: Path, target: Target, songs: Sequence[SongScores], failures: dict[str, str]) -> dict[str, Any]:
    """Write all files of the report, point `latest` beside the folder to it, and return the summary.

    Parameters
    ----------
    failures
        Songs without scores, and why.
    """
    scored = sorted(songs, key=lambda song: song.name)
    summary: dict[str, Any] = {
        "rows": summarize(scored),
        "row_titles": ROW_TITLES,
        "aggregation": "per song the median over its 1-s frames; over the songs median and mean of these",
        "metrics": "BSSEval v4 (museval), vocals + accompaniment scenario, dB",
        "model": {"path": str(target.model.path), "version": target.model.version},
        "dataset": {"kind": target.dataset.kind, "root": str(target.dataset.root)},
        "split": target.split,
        "songs": len(scored),
        "failed": failures,
        "seen_in_training": target.seen_in_training,
    }
    write_json(folder / "summary.json", summary)
    write_atomically(folder / "tracks.csv", _tracks_csv(scored).encode())
    _plot_songs(folder / "songs.png", scored)
    _plot_over_time(folder / "over_time.png", scored)
    write_atomically(folder / "report.md", report_markdown(summary, scored).encode())
    _point_latest(folder)
    return summary


def _point_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest-{folder.name}"
    temporary.symlink_to(folder.name, target_is_directory=True)
    os.replace(temporary, link)  # noqa: PTH105


def _tracks_csv(songs: Sequence[SongScores]) -> str:
    """One line per song, row, source and metric: the median over the counted frames."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["track", "name", "seconds", "row", "source", "metric", "median_db", "frames", "frames_counted"])
    for song in songs:
        for row in ROWS:
            for source in SOURCES:
                for metric in METRICS:
                    values = song.rows[row][source][metric]
                    median = song.median(row, source, metric)
                    writer.writerow(
                        [
                            song.track_id,
                            song.name,
                            f"{song.seconds:.2f}",
                            row,
                            source,
                            metric,
                            "" if math.isnan(median) else f"{median:.5f}",
                            len(values),
                            int(np.isfinite(values).sum()),
                        ]
                    )
    return text.getvalue()


def decibels(value: float | None) -> str:
    """A figure for people: two decimals, or a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def summary_table(rows: dict[str, Any]) -> list[list[str]]:
    """Header and one line per row: vocals and accompaniment SDR, median and mean; vocals SIR, SAR and ISR, median."""
    header = ["row", "vocals SDR", "(mean)", "accomp. SDR", "(mean)", "vocals SIR", "SAR", "ISR"]
    lines = [header]
    for row in ROWS:
        vocals, accompaniment = (rows[row][source] for source in SOURCES)
        lines.append(
            [
                ROW_TITLES[row],
                decibels(vocals["SDR"]["median"]),
                decibels(vocals["SDR"]["mean"]),
                decibels(accompaniment["SDR"]["median"]),
                decibels(accompaniment["SDR"]["mean"]),
                *(decibels(vocals[metric]["median"]) for metric in ("SIR", "SAR", "ISR")),
            ]
        )
    return lines


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A markdown table; pipes in cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    ruled = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def print_summary(rows: dict[str, Any]) -> None:
    """Print the summary as a table in the terminal."""
    header, *lines = summary_table(rows)
    table = Table(title="BSSEval v4, dB, median over songs of the songs' medians", title_justify="left")
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right")
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def report_markdown(summary: dict[str, Any], songs: Sequence[SongScores], pictures: bool = True) -> str:
    """The readable report."""
    parts = [
        "# Evaluation",
        f"Model `{summary['model']['path']}` on {summary['songs']} {summary['split']} songs of "
        f"{summary['dataset']['kind']} (`{summary['dataset']['root']}`). {summary['metrics']}. "
        f"Aggregation: {summary['aggregation']}.",
        markdown_table(summary_table(summary["rows"])),
        "Higher is better. The floor is what doing nothing scores; the ceiling is what a perfect mask of this kind "
        "would. SIR: how little of the other source is left; SAR: how few artefacts; ISR: how true level and panning "
        "are.",
    ]
    if summary["seen_in_training"]:
        parts.append(
            f"**Warning:** the model was trained or validated on {len(summary['seen_in_training'])} of these songs; "
            f"their scores say little: {', '.join(summary['seen_in_training'])}."
        )
    if summary["failed"]:
        parts.append("**Failed songs:**\n\n" + "\n".join(f"- {name}: {why}" for name, why in summary["failed"].items()))
    if pictures:
        parts.append("![SDR of every song](songs.png)\n\n![SDR over time](over_time.png)")
    lines = [["song", "vocals SDR", "floor", "ceiling", "accomp. SDR"]]
    ordered = sorted(songs, key=_best_first)
    for song in ordered:
        vocals = [decibels(song.median(row, "vocals", "SDR")) for row in ("model", "mixture", "irm1")]
        lines.append([song.name, *vocals, decibels(song.median("model", "accompaniment", "SDR"))])
    parts.append("## Songs, best first (medians, dB)\n\n" + markdown_table(lines))
    return "\n\n".join(parts) + "\n"


def _best_first(song: SongScores) -> tuple[bool, float, str]:
    """Sorting key: by falling vocals SDR, songs without a counted frame last."""
    score = song.median("model", "vocals", "SDR")
    return math.isnan(score), 0.0 if math.isnan(score) else -score, song.name


def _plot_songs(path: Path, songs: Sequence[SongScores]) -> None:
    """SDR of every song: model between floor and ceiling, sorted by the model's."""
    figure, axes = pyplot.subplots(1, 2, figsize=(12, max(3.0, 0.26 * len(songs) + 1.4)), sharey=True)
    ordered = sorted(songs, key=_best_first, reverse=True)
    for axis, source in zip(axes, SOURCES, strict=True):
        for row in ("mixture", "model", "irm1"):
            axis.plot(
                [song.median(row, source, "SDR") for song in ordered],
                range(len(ordered)),
                "o",
                color=COLORS[row],
                label=ROW_TITLES[row],
            )
        axis.set_xlabel(f"{source} SDR in dB (median of 1-s frames)")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(ordered)), [_plot_text(song.name)[:40] for song in ordered], fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.4 / figure.get_figheight()))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_over_time(path: Path, songs: Sequence[SongScores]) -> None:
    """Vocals SDR over time of the best, the median and the worst song."""
    scored = sorted((song for song in songs if not math.isnan(song.median("model", "vocals", "SDR"))), key=_best_first)
    chosen = {"best": scored[0], "median": scored[len(scored) // 2], "worst": scored[-1]} if scored else {}
    figure, axes = pyplot.subplots(max(1, len(chosen)), 1, figsize=(9, 2.4 * max(1, len(chosen))), squeeze=False)
    for axis, (title, song) in zip(axes[:, 0], chosen.items(), strict=False):
        for row in ("irm1", "model", "mixture"):
            axis.plot(song.rows[row]["vocals"]["SDR"], "o-", markersize=3, color=COLORS[row], label=row)
        axis.set_title(f"{title}: {_plot_text(song.name)}", fontsize=9)
        axis.set_ylabel("vocals SDR, dB")
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("seconds")
    if chosen:
        axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_text(name: str) -> str:
    """A name as matplotlib draws it: dollar signs would start mathematics."""
    return name.replace("$", "\\$")
