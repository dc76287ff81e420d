"""The report as one self-contained HTML page: tables, pictures and players, nothing loaded from elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocsep.evaluation.examples import Example
from vocsep.evaluation.report.text import EXPLANATION, findings, song_table, summary_table
from vocsep.evaluation.scores import SongScores
from vocsep.html.pages import rendered


def report_html(
    summary: dict[str, Any], songs: Sequence[SongScores], examples: dict[str, Example], folder: Path
) -> str:
    """The page: songs in the given order, examples by their titles, and the pictures in `folder`."""
    return rendered(
        "evaluation/report/report.html.j2",
        summary=summary,
        summary_table=summary_table(summary),
        song_table=song_table(songs),
        explanation=EXPLANATION,
        findings=findings(summary),
        examples=examples,
        players={title: example.player.read_text(encoding="utf-8") for title, example in examples.items()},
        pictures={name: (folder / name).read_bytes() for name in ("songs.png", "over_time.png")},
    )
