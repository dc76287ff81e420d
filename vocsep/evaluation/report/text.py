"""Tables of a report: markdown, CSV and the terminal, from the summary and the songs' scores."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

from vocsep.evaluation.rows import ROW_TITLES
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, SongScores
from vocsep.metrics.bsseval import METRICS
from vocsep.tables import aligned, decibels, interval_text, markdown_table, plain, spreadsheet_cell

TERMINAL_COLUMNS = 6


def summary_table(summary: dict[str, Any]) -> list[list[str]]:
    """Header and one line per row: SDR with its interval and mean, the other measures of the vocals as medians."""
    lines = [["row", "vocals SDR", "95 %", "mean", "accomp. SDR", "mean", "SIR", "SAR", "ISR", "SI-SDR", "song SDR"]]
    for row, scores in summary["rows"].items():
        vocals, accompaniment = (scores[source] for source in SOURCES)
        lines.append(
            [
                ROW_TITLES[row],
                decibels(vocals["SDR"]["median"]),
                interval_text(summary["intervals"][row]["vocals"]["median"]),
                decibels(vocals["SDR"]["mean"]),
                decibels(accompaniment["SDR"]["median"]),
                decibels(accompaniment["SDR"]["mean"]),
                *(decibels(vocals[metric]["median"]) for metric in ("SIR", "SAR", "ISR", "SI-SDR", "song SDR")),
            ]
        )
    return lines


def song_table(songs: Sequence[SongScores]) -> list[list[str]]:
    """Header and one line per song, in the given order: medians in dB and the counted frames."""
    lines = [["song", "vocals SDR", "floor", "ceiling", "accomp. SDR", "frames counted", "not counted"]]
    for song in songs:
        vocals = [decibels(song.median(row, "vocals", "SDR")) for row in ("model", "mixture", "irm1")]
        counted, silent, muted = song.frames("model")
        dropped = ", ".join(
            f"{number} {why}" for number, why in ((silent, "silent"), (muted, "muted by the estimate")) if number
        )
        accompaniment = decibels(song.median("model", "accompaniment", "SDR"))
        lines.append([song.name, *vocals, accompaniment, str(counted), dropped])
    return lines


def findings(summary: dict[str, Any], shown: Callable[[str], str] = str) -> list[str]:
    """What the figures say, in sentences: share of the ceiling, comparison, and all warnings.

    Parameters
    ----------
    shown
        What a name from elsewhere is written as.
    """
    sentences = []
    ceiling = summary["ceiling"]
    if ceiling is not None:
        sentences.append(
            f"The model's vocals SDR is {ceiling['share_of_ceiling']:.0%} of the ceiling's, and "
            f"{ceiling['way_from_floor']:.0%} of the way from floor to ceiling."
        )
    for comparison in summary["comparisons"]:
        verdict = "a clear difference" if comparison["clear"] else "no clear difference"
        sentences.append(
            f"Against {ROW_TITLES[comparison['other']]} ({shown(comparison['other_model'])}), song by song: "
            f"{comparison['mean_db']:+.2f} dB vocals SDR on average (95 % interval "
            f"{interval_text(comparison['interval']) or 'unknown'}), better on {comparison['better']} of "
            f"{comparison['songs']} songs; {verdict}."
        )
    if summary["seen_in_training"]:
        sentences.append(
            f"Warning: the model was trained or validated on {len(summary['seen_in_training'])} of these songs; "
            f"their scores say little: {', '.join(map(shown, summary['seen_in_training']))}."
        )
    if summary["muted_songs"]:
        sentences.append(
            "Warning: the estimate is silent in some frames where the song is not; by BSSEval's rule such frames count "
            f"for nothing, which can flatter: {', '.join(map(shown, summary['muted_songs']))}."
        )
    if summary["songs_without_score"]:
        sentences.append(f"No frame could be counted in: {', '.join(map(shown, summary['songs_without_score']))}.")
    return sentences


def headline(summary: dict[str, Any]) -> str:
    """What was scored on what, and how."""
    return (
        f"{plain(summary['subject'])} on {summary['songs']} {summary['split']} songs of {summary['dataset']['kind']} "
        f"({plain(summary['dataset']['root'])}). {summary['metrics']}. Aggregation: {summary['aggregation']}."
    )


def _about(summary: dict[str, Any]) -> str:
    """When it was made, and of what model."""
    facts = {"date": summary["date"], **summary["model"]}
    return "\n".join(f"- {title}: {plain(fact)}" for title, fact in facts.items())


EXPLANATION = (
    "Higher is better. The floor is what doing nothing scores; the ceiling is what a perfect mask of this kind would. "
    "SIR: how little of the other source is left; SAR: how few artifacts; ISR: how true level and panning are. "
    "SI-SDR and song SDR are over whole songs. Intervals: bootstrap over songs."
)


def report_markdown(summary: dict[str, Any], songs: Sequence[SongScores], pictures: bool = True) -> str:
    """The readable report; songs in the given order."""
    parts = ["# Evaluation", headline(summary), _about(summary), markdown_table(summary_table(summary)), EXPLANATION]
    parts.append("\n".join(f"- {sentence}" for sentence in findings(summary, plain)))
    if summary["failed"]:
        failed = [f"- {plain(name)}: {plain(why)}" for name, why in summary["failed"].items()]
        parts.append("**Failed songs:**\n\n" + "\n".join(failed))
    if pictures:
        parts.append("![SDR of every song](songs.png)\n\n![SDR over time](over_time.png)")
    table = [[plain(line[0]), *line[1:]] for line in song_table(songs)]
    parts.append("## Songs, best first (medians, dB)\n\n" + markdown_table(table))
    return "\n\n".join(part for part in parts if part) + "\n"


def tracks_csv(songs: Sequence[SongScores]) -> str:
    """One line per song, row, source and metric; BSSEval's are medians over counted frames."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["track", "name", "seconds", "row", "source", "metric", "value_db", "frames", "frames_counted"])
    for song in songs:
        name = spreadsheet_cell(song.name)
        for row in song.rows:
            for source in SOURCES:
                for metric in (*METRICS, *WHOLE_SONG_METRICS):
                    value = song.value(row, source, metric)
                    shown = f"{value:.5f}" if math.isfinite(value) else ""
                    frames: tuple[int, int] | tuple[str, str] = ("", "")
                    if metric in METRICS:
                        frames = (len(song.rows[row][source]["SDR"]), song.counted(row, source, metric))
                    writer.writerow([song.track_id, name, f"{song.seconds:.2f}", row, source, metric, shown, *frames])
    return text.getvalue()


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The summary for a terminal."""
    table = [line[:TERMINAL_COLUMNS] for line in summary_table(summary)]
    sentences = [f"  {sentence}" for sentence in findings(summary)]
    title = "  BSSEval v4 in dB: median (and mean) over songs of the songs' medians"
    return [title, *(f"  {line}" for line in aligned(table)), *sentences]
