"""Reports: what they hold, for people and for programs."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from numpy.typing import NDArray

from storage.files import read_json
from storage.registry import ModelVersion
from tests.vocsep.evaluation.evaluation_songs import (
    BEST_FIRST,
    INF,
    MADE_UP_ROWS,
    NAMES,
    NAN,
    NASTY_NAMES,
    made,
    made_up,
    some_songs,
    songs_of,
    target_of,
)
from tests.vocsep.evaluation.report_pages import as_json, check_picture, parsed_page, table_cells
from vocsep.evaluation.report.text import findings, summary_lines, tracks_csv
from vocsep.evaluation.report.writing import report_folder, summarize_report, write_report
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, summarize
from vocsep.evaluation.subjects import FolderSubject
from vocsep.metrics.bsseval import METRICS

Array = NDArray[Any]


# Some of the names below have letters that matplotlib's own font lacks; it draws boxes and warns.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a report of `some_songs`, `<root>/reports/one`, and its summary; not to be changed."""
    root = tmp_path_factory.mktemp("plain")
    folder = made(root / "reports" / "one")
    return folder, write_report(folder, target_of(root), some_songs(), {})


def test_summary_file_has_its_schema_in_strict_json(plain: tuple[Path, dict[str, Any]]) -> None:
    songs = some_songs()
    folder, returned = plain
    root = folder.parents[1]
    text = (folder / "summary.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    summary = json.loads(text)
    assert summary == as_json(returned)
    assert list(summary["rows"]) == list(MADE_UP_ROWS)
    for row in MADE_UP_ROWS:
        assert list(summary["rows"][row]) == list(SOURCES)
        for source in SOURCES:
            assert list(summary["rows"][row][source]) == [*METRICS, *WHOLE_SONG_METRICS] == summary["measures"]
            for figures in summary["rows"][row][source].values():
                assert list(figures) == ["median", "mean"]
                assert all(isinstance(value, float) for value in figures.values())
    assert summary["rows"] == summarize(songs)
    assert summary["songs"] == 5
    assert summary["split"] == "test"
    assert str(root / "models" / "0001") in summary["subject"]
    assert summary["dataset"] == {"kind": "folder", "root": str((root / "songs").resolve())}
    assert summary["failed"] == {}
    assert summary["seen_in_training"] == summary["muted_songs"] == summary["comparisons"] == []
    assert summary["songs_without_score"] == [NAMES[2]]


def test_intervals_hold_median_and_mean_of_every_row_and_source(tmp_path: Path) -> None:
    medians = np.random.default_rng(0).normal(4.0, 3.0, 25).tolist()
    summary = as_json(summarize_report(target_of(tmp_path), songs_of([*medians, NAN, INF]), {}))
    assert list(summary["intervals"]) == list(MADE_UP_ROWS)
    for row in MADE_UP_ROWS:
        assert list(summary["intervals"][row]) == list(SOURCES)
        for source in SOURCES:
            for aggregation in ("median", "mean"):
                low, high = summary["intervals"][row][source][aggregation]
                assert low < summary["rows"][row][source]["SDR"][aggregation] < high
            low, high = summary["intervals"][row][source]["mean"]
            half_width = 1.96 * np.std(medians) / math.sqrt(len(medians))
            assert high - low == pytest.approx(2 * half_width, rel=0.05)
    shifted = [value + 10 for value in summary["intervals"]["model"]["vocals"]["median"]]
    assert summary["intervals"]["irm1"]["vocals"]["median"] == pytest.approx(shifted)


@pytest.mark.parametrize("medians", [[], [NAN, NAN], [3.0], [3.0, NAN]])
def test_fewer_than_two_scored_songs_have_no_interval(tmp_path: Path, medians: list[float]) -> None:
    summary = summarize_report(target_of(tmp_path), songs_of(medians), {})
    for row in summary["rows"]:
        for source in SOURCES:
            assert summary["intervals"][row][source] == {"median": None, "mean": None}


@pytest.mark.parametrize(
    ("model", "floor", "ceiling", "expected"),
    [
        (6.0, -6.0, 9.0, (6 / 9, 12 / 15)),
        (9.0, -6.0, 9.0, (1.0, 1.0)),
        (-6.0, -6.0, 9.0, (-6 / 9, 0.0)),
        (-9.0, -6.0, 9.0, (-1.0, -0.2)),
        (10.0, 2.0, 8.0, (1.25, 8 / 6)),
        (5.0, 3.0, 3.0, None),  # no way from floor to ceiling
        (5.0, -3.0, 0.0, None),  # no share of nothing
        (NAN, -3.0, 9.0, None),
        (5.0, -3.0, NAN, None),
    ],
)
def test_share_of_the_ceiling_and_way_from_the_floor_are_of_the_medians_over_songs(
    tmp_path: Path, model: float, floor: float, ceiling: float, expected: tuple[float, float] | None
) -> None:
    songs = []
    for number, spread in enumerate((-4.0, 0.0, 30.0)):
        song = made_up(f"song {number}", [0.0])
        for row, value in (("model", model), ("mixture", floor), ("irm1", ceiling)):
            song.rows[row]["vocals"]["SDR"] = [value + spread]
            song.rows[row]["accompaniment"]["SDR"] = [1.0]
        songs.append(song)
    summary = as_json(summarize_report(target_of(tmp_path), songs, {}))
    if expected is None:
        assert summary["ceiling"] is None
    else:
        share, way = expected
        assert summary["ceiling"] == pytest.approx({"share_of_ceiling": share, "way_from_floor": way})
        (sentence,) = [sentence for sentence in findings(summary) if "ceiling" in sentence]
        assert f"{share:.0%} of the ceiling" in sentence
        assert f"{way:.0%} of the way" in sentence


def test_table_of_songs_in_the_report_is_in_order_of_their_names(plain: tuple[Path, dict[str, Any]]) -> None:
    written = (plain[0] / "tracks.csv").read_bytes().decode("utf-8")
    assert written == tracks_csv(sorted(some_songs(), key=lambda song: song.name))


def test_table_of_songs_parses_back_to_the_figures() -> None:
    songs = some_songs()
    songs[0] = made_up(NAMES[0], [5.0, 6.0, 7.0], whole=-INF)
    songs[1] = made_up(NAMES[1], [1.0, NAN, 2.0], whole=3.25)
    lines = list(csv.DictReader(io.StringIO(tracks_csv(songs), newline="")))
    measures = (*METRICS, *WHOLE_SONG_METRICS)
    assert len(lines) == len(songs) * len(MADE_UP_ROWS) * len(SOURCES) * len(measures)
    by_name = {song.name: song for song in songs}
    assert {line["name"] for line in lines} == set(NAMES)
    for line in lines:
        song = by_name[line["name"]]
        assert line["track"] == song.track_id
        assert float(line["seconds"]) == song.seconds
        if line["metric"] in METRICS:
            values = song.rows[line["row"]][line["source"]][line["metric"]]
            assert int(line["frames"]) == len(values)
            assert int(line["frames_counted"]) == sum(map(math.isfinite, values))
            value = song.median(line["row"], line["source"], line["metric"])
        else:
            assert line["frames"] == line["frames_counted"] == ""
            value = song.whole[line["row"]][line["source"]][line["metric"]]
        if math.isfinite(value):
            assert float(line["value_db"]) == pytest.approx(value, abs=1e-5)
        else:
            assert line["value_db"] == ""


HOSTILE_NAMES = (
    *NASTY_NAMES,
    "=HYPERLINK(0)",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "[click](https://example.com)",
    "https://example.com",
    "www.example.com",
    "someone@example.com",
    "<https://example.com>",
    "![x](https://example.com/x.png)",
    "a \\| <img src=x onerror=alert(1)>",
    "`` <b> ``",
    "` <b>",
    "$x^2$",
    "one\n\n<script>",
    "one\u2028# two\u202ethree",
    "&#60;b>",
    "\uff1d1+1",
    "[x]: https://example.com",
)


def test_names_from_elsewhere_are_text_in_the_readable_report_and_in_the_table(tmp_path: Path) -> None:
    songs = [made_up(name, [NAN]) for name in HOSTILE_NAMES]
    failures = dict.fromkeys(HOSTILE_NAMES, "failed: " + HOSTILE_NAMES[0])
    folder = made(tmp_path / "reports" / "one")
    write_report(folder, target_of(tmp_path), songs, failures)
    text = (folder / "report.md").read_text(encoding="utf-8")
    reader = MarkdownIt("commonmark", {"linkify": True}).enable("table")
    inline = [inner for token in reader.parse(text) for inner in token.children or []]
    assert not {token.type for token in (*reader.parse(text), *inline)} & {"html_block", "html_inline", "link_open"}
    assert [token.attrs["src"] for token in inline if token.type == "image"] == ["songs.png", "over_time.png"]
    seen = "".join(token.content for token in inline if token.type == "text")
    assert not any(part in seen for part in ("<", "$", "://", "www.", "@", "\u202e"))
    rows = [line for line in text.split("## Songs")[1].splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(songs)
    with (folder / "tracks.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert not [line["name"] for line in lines if line["name"][:1] in "=\uff1d+-@\t"]
    assert {line["name"].removeprefix("'") for line in lines} == set(HOSTILE_NAMES)


def test_readable_report_lists_songs_best_first_and_warns_of_failed_and_of_trained_ones(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    failures = {"Lost | Tape": "Lost | Tape.wav: no such file"}
    target = target_of(tmp_path, seen=[NAMES[0], "Never Evaluated"])
    write_report(folder, target, some_songs(), failures)
    text = (folder / "report.md").read_text(encoding="utf-8")
    songs = text.split("## Songs")[1].splitlines()
    rows = [table_cells(line) for line in songs if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [row[0].strip("` ") for row in rows[2:]] == BEST_FIRST
    assert rows[2][1:] == ["6.00", "-4.00", "16.00", "6.00", "3", ""]
    assert rows[3][1:] == ["1.50", "-8.50", "11.50", "1.50", "2", "1 silent"]
    assert rows[-1][1:] == ["-", "-", "-", "-", "0", "3 silent"]
    assert "Warning" in text
    (warning,) = [line for line in text.splitlines() if "Warning" in line]
    assert NAMES[0] in warning
    assert "Never Evaluated" not in warning
    (unscored,) = [line for line in text.splitlines() if line.startswith("- No frame could be counted")]
    assert NAMES[2] in unscored
    assert "- Lost | Tape: Lost | Tape.wav: no such file" in text
    assert "nan" not in text.lower()
    for picture in ("songs.png", "over_time.png"):
        assert f"({picture})" in text


def test_report_warns_of_muted_songs_and_counts_their_frames(tmp_path: Path) -> None:
    song = made_up("Muted", [1.0, NAN, NAN, 3.0])
    for source in SOURCES:
        song.rows["mixture"][source] = {metric: [-9.0, -9.0, NAN, -7.0] for metric in METRICS}
    folder = made(tmp_path / "reports" / "one")
    summary = write_report(folder, target_of(tmp_path), [song, made_up("Fine", [0.0, NAN])], {})
    assert summary["muted_songs"] == ["Muted"]
    text = (folder / "report.md").read_text(encoding="utf-8")
    (warning,) = [line for line in text.splitlines() if "Warning" in line]
    assert "silent" in warning
    assert warning.endswith(": Muted.")
    (line,) = [line for line in text.splitlines() if line.startswith("| Muted |")]
    assert table_cells(line)[-2:] == ["2", "1 silent, 1 muted by the estimate"]


def test_report_without_failed_or_trained_songs_has_no_warning(plain: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = plain
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "Warning" not in text
        assert "Failed" not in text


def test_pictures_are_drawn_for_any_names(plain: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = plain
    for picture in ("songs.png", "over_time.png"):
        check_picture(folder / picture)


def test_report_of_no_scored_song_is_written_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, songs in enumerate(([], [made_up("Silent", [NAN, NAN], whole=NAN)])):
        folder = made(tmp_path / "reports" / str(number))
        failures = dict.fromkeys(NAMES, "cannot be read")
        summary = write_report(folder, target_of(tmp_path), songs, failures)
        if songs:
            assert summary["rows"]["model"]["vocals"]["SDR"] == {"median": None, "mean": None}
        else:
            assert summary["rows"] == {}
        assert summary["ceiling"] is None
        assert read_json(folder / "summary.json")["failed"] == failures
        for picture in ("songs.png", "over_time.png"):
            assert (folder / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        page = parsed_page(folder / "report.html")
        assert all(name in page.text for name in NAMES)
        assert "nan" not in page.text.lower()
        assert "nan" not in "\n".join(summary_lines(summary)).lower()


def test_terminal_shows_every_row_and_finding(tmp_path: Path) -> None:
    songs = songs_of([3.0, 4.0, 5.0], {"champion": -1.0})
    summary = summarize_report(target_of(tmp_path, others=["champion"], seen=["[bold]"]), songs, {})
    printed = "\n".join(summary_lines(summary | {"seen_in_training": ["[bold] song"]}))
    for row in ("model", "champion", "mixture (floor)", "IRM1 (ceiling)"):
        assert re.search(rf"^\s*{re.escape(row)}\s+-?\d+\.\d\d\s", printed, re.MULTILINE)
    for sentence in ("+1.00 dB", "a clear difference", "of the ceiling", "[bold] song"):
        assert sentence in printed


def test_latest_points_to_the_newest_report_and_moves_with_the_folder_of_reports(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = made(tmp_path / "reports" / name)
        write_report(folder, target_of(tmp_path), some_songs(), {})
        latest = tmp_path / "reports" / "latest"
        assert latest.is_symlink()
        assert latest.resolve() == folder.resolve()
        assert read_json(latest / "summary.json")["songs"] == 5
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["latest", "one", "two"]
    (tmp_path / "reports").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest" / "summary.json").is_file()


def test_report_folder_is_new_each_time_and_named_after_the_model(tmp_path: Path) -> None:
    target = target_of(tmp_path)
    numbered = replace(target, models={"model": ModelVersion(tmp_path / "models" / "0012", 12, {})})
    outside = replace(target, models={"model": ModelVersion(tmp_path / "my model", None, {})})
    elsewhere = replace(target, subjects={"model": FolderSubject(tmp_path)}, models={})
    folders = [report_folder(tmp_path / "reports", each) for each in (numbered, numbered, outside, elsewhere)]
    assert len(set(folders)) == 4
    assert all(folder.is_dir() and not list(folder.iterdir()) for folder in folders)
    assert "model0012" in folders[0].name
    assert folders[2].name.endswith("-model")
    assert folders[3].name.endswith("-estimates")
