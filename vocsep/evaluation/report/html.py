"""The report as one self-contained HTML page: tables, pictures and audio players, nothing loaded from elsewhere."""

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from vocsep.evaluation.examples import Example
from vocsep.evaluation.report.text import EXPLANATION, findings, song_table, summary_table
from vocsep.evaluation.scores import SongScores


def report_html(
    summary: dict[str, Any], songs: Sequence[SongScores], examples: dict[str, Example], folder: Path
) -> str:
    """The page: songs in the given order, examples by their titles, and the pictures that lie in `folder`."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["embedded"] = _embedded
    source = (resources.files("vocsep.evaluation.report") / "report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        summary=summary,
        summary_table=summary_table(summary),
        song_table=song_table(songs),
        explanation=EXPLANATION,
        findings=findings(summary),
        examples=examples,
        folder=folder,
    )


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
