"""Writing the report of an evaluation: the folder and its files."""

import math
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from storage.files import new_folder, write_atomically, write_json
from storage.registry import WEIGHTS_DIGEST
from vocsep.evaluation.examples import Example
from vocsep.evaluation.report.facts import model_facts
from vocsep.evaluation.report.html import report_html
from vocsep.evaluation.report.plots import plot_over_time, plot_songs
from vocsep.evaluation.report.text import report_markdown, tracks_csv
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, SongScores, finite, summarize
from vocsep.evaluation.target import Target
from vocsep.metrics.bsseval import METRICS
from vocsep.metrics.statistics import bootstrap_interval, paired_difference


def report_folder(reports: Path, target: Target) -> Path:
    """A new folder `<reports>/<time>-<model>`."""
    return new_folder(reports, f"{datetime.now():%Y%m%d-%H%M%S}-{target.label}")


def best_first(songs: Sequence[SongScores]) -> list[SongScores]:
    """Songs by falling vocals SDR of the model, those without a counted frame last."""

    def key(song: SongScores) -> tuple[float, str]:
        score = song.median("model", "vocals", "SDR")
        return math.inf if math.isnan(score) else -score, song.name

    return sorted(songs, key=key)


def example_songs(songs: Sequence[SongScores]) -> dict[str, SongScores]:
    """The best, the median and the worst song by vocals SDR; fewer, and none twice, if there are fewer."""
    scored = [song for song in best_first(songs) if not math.isnan(song.median("model", "vocals", "SDR"))]
    if not scored:
        return {}
    titles = {len(scored) // 2: "median", len(scored) - 1: "worst", 0: "best"}  # where two fall together, the last
    return {titles[place]: scored[place] for place in sorted(titles)}


def write_report(
    folder: Path,
    target: Target,
    songs: Sequence[SongScores],
    failures: dict[str, str],
    examples: dict[str, Example] | None = None,
) -> dict[str, Any]:
    """Write all files of the report, point `latest` next to the folder to it, and return the summary.

    `failures` are songs without scores, and why; `examples` songs to look at and listen to in the page, by title.
    """
    ordered = best_first(songs)
    summary = summarize_report(target, ordered, failures)
    write_json(folder / "summary.json", summary)
    write_atomically(folder / "tracks.csv", tracks_csv(sorted(songs, key=lambda song: song.name)).encode())
    plot_songs(folder / "songs.png", ordered)
    plot_over_time(folder / "over_time.png", example_songs(songs))
    write_atomically(folder / "report.md", report_markdown(summary, ordered).encode())
    write_atomically(
        folder / "report.html", report_html(summary, ordered, examples or {}, folder).encode(errors="replace")
    )
    _point_latest(folder)
    return summary


def summarize_report(target: Target, songs: Sequence[SongScores], failures: dict[str, str]) -> dict[str, Any]:
    """All figures over the songs, as JSON-like values (see `docs/guides/evaluate.md`)."""
    rows = summarize(songs)
    model = target.models.get("model")
    return {
        "rows": rows,
        "intervals": {row: {source: _intervals(songs, row, source) for source in SOURCES} for row in rows},
        "ceiling": _ceiling(rows),
        "comparisons": _comparisons(target, songs),
        "aggregation": "per song the median over its 1-s frames; over the songs median and mean of these",
        "metrics": "BSSEval v4 (museval), vocals + accompaniment scenario, dB",
        "measures": [*METRICS, *WHOLE_SONG_METRICS],
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
        "subject": target.titles["model"],
        "weights_sha256": model.description.get(WEIGHTS_DIGEST) if model else None,
        "model": model_facts(model.description) if model else {},
        "dataset": {"kind": target.dataset.kind, "root": str(target.dataset.root)},
        "split": target.split,
        "songs": len(songs),
        "failed": failures,
        "seen_in_training": target.seen_in_training,
        "muted_songs": [song.name for song in songs if song.frames("model")[2]],
        "songs_without_score": [song.name for song in songs if not song.frames("model")[0]],
    }


def _intervals(songs: Sequence[SongScores], row: str, source: str) -> dict[str, tuple[float, float] | None]:
    counted = finite([song.median(row, source, "SDR") for song in songs]).tolist()
    return {"median": bootstrap_interval(counted, "median"), "mean": bootstrap_interval(counted, "mean")}


def _ceiling(rows: dict[str, Any]) -> dict[str, float] | None:
    """Where the model's median vocals SDR is: as a share of the ceiling's, and between floor and ceiling."""
    if not all(row in rows for row in ("model", "mixture", "irm1")):
        return None
    model, floor, ceiling = (rows[row]["vocals"]["SDR"]["median"] for row in ("model", "mixture", "irm1"))
    if model is None or floor is None or ceiling is None or ceiling <= max(0.0, floor):
        return None
    return {"share_of_ceiling": model / ceiling, "way_from_floor": (model - floor) / (ceiling - floor)}


def _comparisons(target: Target, songs: Sequence[SongScores]) -> list[dict[str, Any]]:
    found = []
    for row in ("champion", "against"):
        if row not in target.subjects:
            continue
        first, second = ([song.median(name, "vocals", "SDR") for song in songs] for name in ("model", row))
        difference = paired_difference(first, second)
        if difference is not None:
            found.append(
                {
                    "other": row,
                    "other_model": target.titles[row],
                    "metric": "vocals SDR",
                    "songs": difference.songs,
                    "better": difference.better,
                    "mean_db": difference.mean,
                    "interval": difference.interval,
                    "clear": difference.is_clear,
                }
            )
    return found


def _point_latest(folder: Path) -> None:
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest-{folder.name}"
    temporary.symlink_to(folder.name, target_is_directory=True)
    os.replace(temporary, link)  # noqa: PTH105
