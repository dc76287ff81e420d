"""The report as one self-contained HTML page: tables, pictures and audio players, nothing loaded from elsewhere."""

import base64
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from vocsep.evaluation.examples import Example
from vocsep.evaluation.report.text import EXPLANATION, findings, song_table, summary_table
from vocsep.evaluation.scores import SongScores


def report_html(
    summary: dict[str, Any], songs: Sequence[SongScores], examples: dict[str, Example], folder: Path
) -> str:
    """The page.

    Parameters
    ----------
    songs
        In the order in which they shall stand.
    examples
        Title to song to look at and listen to.
    folder
        Where `songs.png` and `over_time.png` are.
    """
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (resources.files("vocsep.evaluation.report") / "report.html.j2").read_text(encoding="utf-8")
    )
    shown = [
        {
            "title": title,
            "name": example.name,
            "picture": _embedded(example.picture),
            "sounds": {name: _embedded(path) for name, path in example.sounds.items()},
        }
        for title, example in examples.items()
    ]
    return template.render(
        summary=summary,
        table=_table,
        summary_table=summary_table(summary),
        song_table=song_table(songs),
        explanation=EXPLANATION,
        findings=findings(summary),
        examples=shown,
        songs_picture=_embedded(folder / "songs.png"),
        over_time_picture=_embedded(folder / "over_time.png"),
    )


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _table(lines: Sequence[Sequence[str]], kind: str) -> Markup:
    def cells(line: Sequence[str], tag: str) -> Markup:
        return Markup("").join(Markup("<{0}>{1}</{0}>").format(Markup(tag), cell) for cell in line)

    header = Markup("<tr>{}</tr>").format(cells(lines[0], "th"))
    body = Markup("").join(Markup("<tr>{}</tr>").format(cells(line, "td")) for line in lines[1:])
    return Markup('<table class="{}"><thead>{}</thead><tbody>{}</tbody></table>').format(escape(kind), header, body)
