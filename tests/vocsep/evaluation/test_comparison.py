"""A report that compares a model with another one, song by song."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from numpy.typing import NDArray

from tests.vocsep.evaluation.evaluation_songs import (
    MADE_UP_ROWS,
    NAN,
    made,
    made_up,
    songs_of,
    target_of,
)
from tests.vocsep.evaluation.report_pages import as_json, parsed_page, table_cells
from vocsep.evaluation.report.plots import plot_over_time, plot_songs
from vocsep.evaluation.report.text import findings
from vocsep.evaluation.report.writing import summarize_report, write_report
from vocsep.evaluation.scores import SongScores

Array = NDArray[Any]


# Some of the names below have letters that matplotlib's own font lacks; it draws boxes and warns.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning")


@pytest.mark.parametrize("other", ["champion", "against"])
@pytest.mark.parametrize(
    ("gains", "mean", "better", "clear"),
    [
        ([1.0, 2.0, 0.5, 1.5, 1.0], 1.2, 5, True),
        ([-1.0, -2.0, -0.5, -1.5, -1.0], -1.2, 0, True),
        ([1.0, -1.1, 0.9, -1.0, 0.1], -0.02, 3, False),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0.0, 0, False),
    ],
)
def test_comparison_is_model_minus_other_song_by_song(
    tmp_path: Path, gains: list[float], mean: float, better: int, clear: bool, other: str
) -> None:
    levels = (10.0, -5.0, 3.0, 20.0, 0.0)
    songs = [
        made_up(f"song {number}", [level], others={other: -gain})
        for number, (level, gain) in enumerate(zip(levels, gains, strict=True))
    ]
    songs.append(made_up("silent", [NAN], others={other: 0.0}))
    summary = as_json(summarize_report(target_of(tmp_path, others=[other]), songs, {}))
    (comparison,) = summary["comparisons"]
    assert comparison["other"] == other
    assert str(tmp_path / "models" / "0002") in comparison["other_model"]
    assert comparison["metric"] == "vocals SDR"
    assert comparison["songs"] == 5
    assert comparison["better"] == better
    assert comparison["mean_db"] == pytest.approx(mean, abs=1e-9)
    assert comparison["clear"] is clear
    low, high = comparison["interval"]
    assert low <= comparison["mean_db"] <= high
    assert ((low > 0) or (high < 0)) is clear
    (sentence,) = [sentence for sentence in findings(summary) if "Against" in sentence]
    assert f"{mean:+.2f} dB" in sentence
    assert f"better on {better} of 5 songs" in sentence
    assert sentence.endswith(f"; {'a clear' if clear else 'no clear'} difference.")


def test_comparison_of_one_song_has_no_interval_and_is_not_clear(tmp_path: Path) -> None:
    songs = songs_of([3.0], {"champion": -2.0})
    summary = as_json(summarize_report(target_of(tmp_path, others=["champion"]), songs, {}))
    (comparison,) = summary["comparisons"]
    assert (comparison["mean_db"], comparison["interval"], comparison["clear"]) == (pytest.approx(2.0), None, False)
    (sentence,) = [sentence for sentence in findings(summary) if "Against" in sentence]
    assert "interval unknown" in sentence


def test_nothing_is_compared_without_another_system_or_a_scored_song(tmp_path: Path) -> None:
    assert summarize_report(target_of(tmp_path), songs_of([3.0, 4.0]), {})["comparisons"] == []
    target = target_of(tmp_path, others=["champion"])
    for songs in ([], songs_of([NAN, NAN], {"champion": 1.0})):
        assert summarize_report(target, songs, {})["comparisons"] == []


@pytest.mark.parametrize("other", ["champion", "against"])
def test_other_system_stands_in_every_table_and_picture(tmp_path: Path, other: str) -> None:
    songs = songs_of([3.0, 4.0, 1.0], {other: -2.5})
    folder = made(tmp_path / "reports" / "one")
    summary = write_report(folder, target_of(tmp_path, others=[other]), songs, {})
    assert list(summary["rows"]) == ["model", other, "mixture", "irm1"]
    assert summary["rows"][other]["vocals"]["SDR"]["median"] == 0.5
    title = {"champion": "champion", "against": "other model"}[other]
    text = (folder / "report.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    assert table_cells(line)[1] == "0.50"
    assert parsed_page(folder / "report.html").tables[0][2][:2] == [title, "0.50"]
    with (folder / "tracks.csv").open(newline="", encoding="utf-8") as file:
        assert {line["row"] for line in csv.DictReader(file)} == set(summary["rows"])
    without = [replace(song, rows={row: song.rows[row] for row in MADE_UP_ROWS}) for song in songs]
    draw_all: tuple[Callable[[Path, Sequence[SongScores]], None], ...] = (
        plot_songs,
        lambda path, drawn: plot_over_time(path, {"best": drawn[0]}),
    )
    for draw in draw_all:
        pictures = []
        for drawn in (songs, without):
            draw(tmp_path / "drawn.png", drawn)
            pictures.append(matplotlib.image.imread(tmp_path / "drawn.png"))
        assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()
