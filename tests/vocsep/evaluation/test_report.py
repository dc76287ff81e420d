import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import matplotlib.image
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray

from storage.files import read_json
from storage.registry import ModelVersion
from tests.vocsep.evaluation.test_scores import INF, MADE_UP_ROWS, NAN, add_model, made_up, write_stems
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.evaluation.examples import SOUNDS, Example, make_example
from vocsep.evaluation.report.plots import plot_over_time, plot_songs
from vocsep.evaluation.report.text import findings, summary_lines, tracks_csv
from vocsep.evaluation.report.writing import best_first, example_songs, report_folder, summarize_report, write_report
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, SongScores, summarize
from vocsep.evaluation.subjects import FolderSubject, ModelSubject, Subject
from vocsep.evaluation.target import Target
from vocsep.metrics.bsseval import METRICS
from vocsep.spectrograms.plot import EXCERPT_SECONDS, loudest_span

Array = NDArray[Any]

# Some of the names below have letters that matplotlib's own font lacks; it draws boxes and warns.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning")

NAMES = (
    "Plain - Song",
    "A$AP $ong - $\\frac{1$",
    "Pipe | Dream - a|b",
    "Zoë, Café - “Où?” 歌 ♫",
    "*Bold* _name_ `code` <b>",
)
NASTY_NAMES = (
    "<script>alert(1)</script>",
    "\"double\" & 'single' quotes",
    '"><img src=x onerror=alert(1)>',
    "{{ summary.subject }} {% for %}",
    "&lt;already&gt; &amp; escaped",
)


def target_of(folder: Path, *, seen: Sequence[str] = (), others: Sequence[str] = ()) -> Target:
    """A model, number 1, and others beside it by their rows, numbered on, on songs of all the names."""
    subjects: dict[str, Subject] = {}
    models = {}
    for number, row in enumerate(("model", *others), 1):
        subjects[row] = ModelSubject(folder / "models", str(number))
        models[row] = ModelVersion(folder / "models" / f"{number:04d}", number, {})
    models["model"] = replace(models["model"], description={"data": {"train": list(seen), "valid": []}})
    dataset_folder = folder / "songs"
    for name in NAMES:
        for stem in ("vocals", "accompaniment"):
            path = dataset_folder / "test" / name / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    dataset = open_dataset(dataset_folder, "folder")
    return Target(subjects, models, dataset, "test", tuple(dataset.split("test")))


def some_songs() -> list[SongScores]:
    frames = ([5.0, 6.0, 7.0], [1.0, NAN, 2.0], [NAN, NAN, NAN], [-3.0, INF], [0.0])
    return [made_up(name, values) for name, values in zip(NAMES, frames, strict=True)]


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a report of `some_songs`, `<root>/reports/one`, and its summary; not to be changed."""
    root = tmp_path_factory.mktemp("plain")
    folder = made(root / "reports" / "one")
    return folder, write_report(folder, target_of(root), some_songs(), {})


def as_json(value: Any) -> Any:
    """A value as it comes back from a file of strict JSON."""
    return json.loads(json.dumps(value, allow_nan=False))


# summary.json


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


def songs_of(medians: Sequence[float], others: dict[str, float] | None = None) -> list[SongScores]:
    """One song of one frame per figure."""
    return [made_up(f"song {number}", [value], others=others) for number, value in enumerate(medians)]


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


# Comparison


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
    beside = target_of(tmp_path, others=["champion"])
    for songs in ([], songs_of([NAN, NAN], {"champion": 1.0})):
        assert summarize_report(beside, songs, {})["comparisons"] == []


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


# tracks.csv


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


# report.md


def table_cells(line: str) -> list[str]:
    """Cells of one line of a markdown table, escaped pipes resolved."""
    cells, text = [""], line.strip().removeprefix("|").removesuffix("|")
    position = 0
    while position < len(text):
        if text.startswith("\\|", position):
            cells[-1] += "|"
            position += 2
        elif text[position] == "|":
            cells.append("")
            position += 1
        else:
            cells[-1] += text[position]
            position += 1
    return [cell.strip() for cell in cells]


# Medians 6, 1.5, 0 and -3, then the song without any.
BEST_FIRST = [NAMES[0], NAMES[1], NAMES[4], NAMES[3], NAMES[2]]


def test_readable_report_lists_songs_best_first_and_warns_of_failed_and_of_trained_ones(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    failures = {"Lost | Tape": "Lost | Tape.wav: no such file"}
    target = target_of(tmp_path, seen=[NAMES[0], "Never Evaluated"])
    write_report(folder, target, some_songs(), failures)
    text = (folder / "report.md").read_text(encoding="utf-8")
    songs = text.split("## Songs")[1].splitlines()
    rows = [table_cells(line) for line in songs if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [row[0] for row in rows[2:]] == BEST_FIRST
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


def check_picture(path: Path | io.BytesIO) -> None:
    content = path.read_bytes() if isinstance(path, Path) else path.getvalue()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    pixels: Array = matplotlib.image.imread(io.BytesIO(content))
    assert min(pixels.shape[:2]) > 100
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 3


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


# report.html

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds; fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.style = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def parsed_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def assert_self_contained(page: Page) -> None:
    """Nothing is loaded from elsewhere and nothing is run."""
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "p",
        "code",
        "ul",
        "li",
        "div",
        "span",
    }
    allowed |= {"table", "thead", "tbody", "tr", "th", "td", "img", "audio"}
    assert {tag for tag, _ in page.tags} <= allowed
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action", "poster", "background"):
                assert name == "src"
                assert re.match(r"data:(image/png|audio/mpeg);base64,[A-Za-z0-9+/]+=*$", value or "")
    for loading in ("url(", "@import", "http:", "https:", "//"):
        assert loading not in page.style


def content_of(source: str | None) -> bytes:
    return base64.b64decode((source or "").partition(",")[2], validate=True)


def seconds_of_sound(content: bytes) -> tuple[float, float, int]:
    """Seconds, loudest sample and channels of an mp3 file."""
    with av.open(io.BytesIO(content), mode="r") as container:
        assert container.format.name == "mp3"
        (stream,) = container.streams.audio
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
        waveform = np.concatenate(blocks, axis=1)
        return waveform.shape[1] / stream.rate, float(np.abs(waveform).max()), len(waveform)


def test_page_holds_the_tables_of_the_readable_report_and_loads_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    failures = {"Lost | Tape": "Lost | Tape.wav: no such file"}
    summary = write_report(folder, target_of(tmp_path, seen=[NAMES[0]]), some_songs(), failures)
    page = parsed_page(folder / "report.html")
    assert_self_contained(page)
    markdown = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    lines = [table_cells(line) for line in markdown if line.startswith("|") and not line.startswith("| ---")]
    assert page.tables[0] + page.tables[1] == lines
    assert len(page.tables) == 2
    assert [row[0] for row in page.tables[1][1:]] == BEST_FIRST
    for sentence in findings(summary):
        assert sentence in page.text
    warnings = [attributes for attributes in page.attributes("li") if attributes.get("class") == "warning"]
    assert len(warnings) == 1
    assert "Lost | Tape: Lost | Tape.wav: no such file" in page.text
    assert summary["subject"] in page.text
    for attributes in page.attributes("img"):
        assert attributes["alt"]
        check_picture(io.BytesIO(content_of(attributes["src"])))
    pictures = [content_of(attributes["src"]) for attributes in page.attributes("img")]
    assert pictures == [(folder / name).read_bytes() for name in ("songs.png", "over_time.png")]
    assert page.attributes("audio") == []


def test_page_shows_names_that_look_like_html_as_they_are(tmp_path: Path) -> None:
    songs = [made_up(name, [float(number)]) for number, name in enumerate(NASTY_NAMES)]
    songs[0] = made_up(NASTY_NAMES[0], [NAN])
    failures = {f"failed {name}": f"{name}: cannot be read" for name in NASTY_NAMES}
    picture = tmp_path / "picture.png"
    plot_over_time(picture, {})
    sounds = {name: tmp_path / f"{name}.mp3" for name in SOUNDS}
    for path in sounds.values():
        soundfile.write(path, np.zeros((44100, 2)), 44100, format="MP3")
    examples = {title: Example("id", name, picture, sounds) for title, name in zip("abcde", NASTY_NAMES, strict=True)}
    target = target_of(tmp_path)
    model = replace(target.models["model"], path=tmp_path / "<i>models" / "</title><script>")
    folder = made(tmp_path / "reports" / "one")
    write_report(folder, replace(target, models={"model": model}), songs, failures, examples)
    page = parsed_page(folder / "report.html")
    assert_self_contained(page)
    assert [row[0] for row in page.tables[1][1:]] == [*reversed(NASTY_NAMES[1:]), NASTY_NAMES[0]]
    assert f"No frame could be counted in: {NASTY_NAMES[0]}." in page.text
    for title, name in zip("abcde", NASTY_NAMES, strict=True):
        assert f"failed {name}: {name}: cannot be read" in page.text
        assert f"{title}: {name}\n" in page.text
    alternatives = [attributes["alt"] for attributes in page.attributes("img")]
    assert alternatives[:5] == [f"Spectrograms of {name}" for name in NASTY_NAMES]
    assert str(model.path) in page.text


# Songs to look at and listen to


@settings(max_examples=300, deadline=None)
@given(
    waveform=numpy_strategies.arrays(
        np.float32,
        st.tuples(st.integers(1, 2), st.integers(1, 60)),
        elements=st.integers(-8, 8).map(lambda value: float(np.float32(value / 8))),
    ),
    sample_rate=st.integers(1, 4),
)
def test_loudest_span_is_that_of_a_search_through_all(waveform: Waveform, sample_rate: int) -> None:
    samples = waveform.shape[1]
    length = min(samples, int(EXCERPT_SECONDS) * sample_rate)
    energies = [
        float((waveform[:, start : start + length].astype(np.float64) ** 2).sum())
        for start in range(samples - length + 1)
    ]
    span = loudest_span(waveform, sample_rate)
    assert (span.stop - span.start, span.step) == (length, None)
    assert 0 <= span.start <= span.stop <= samples
    assert energies[span.start] == max(energies)  # sums of multiples of 1/64, so exact


@pytest.mark.parametrize(("seconds", "expected"), [(0.01, 0.01), (5.0, 5.0), (12.0, 12.0), (100.0, 12.0)])
def test_excerpt_lasts_twelve_seconds_or_the_whole_song(seconds: float, expected: float) -> None:
    waveform = np.ones((2, round(seconds * 1000)), np.float32)
    span = loudest_span(waveform, 1000)
    assert span == slice(0, round(expected * 1000))


def test_excerpt_is_taken_where_the_singing_is() -> None:
    waveform = np.full((1, 60_000), 1e-3, np.float32)
    waveform[:, 30_000:42_000] = 0.5
    assert loudest_span(waveform, 1000) == slice(30_000, 42_000)


def titles_of(medians: Sequence[float]) -> dict[str, float]:
    """Titles to the medians of the songs that are shown, of songs with these medians."""
    chosen = example_songs(songs_of(medians))
    assert len({song.track_id for song in chosen.values()}) == len(chosen)
    return {title: song.median("model", "vocals", "SDR") for title, song in chosen.items()}


def test_best_median_and_worst_song_are_shown_each_once() -> None:
    assert titles_of([]) == {}
    assert titles_of([NAN, NAN]) == {}
    assert titles_of([5.0]) == {"best": 5.0}
    assert titles_of([NAN, 5.0, NAN]) == {"best": 5.0}
    assert titles_of([7.0, 5.0, 6.0]) == {"best": 7.0, "median": 6.0, "worst": 5.0}
    assert list(titles_of([7.0, 5.0, 6.0])) == ["best", "median", "worst"]
    many = np.random.default_rng(0).permutation(25).astype(float).tolist()
    assert titles_of([*many, NAN]) == {"best": 24.0, "median": 12.0, "worst": 0.0}


def test_of_two_songs_each_is_shown_once() -> None:
    assert titles_of([5.0, 6.0]) == {"best": 6.0, "worst": 5.0}


@pytest.mark.parametrize("count", [4, 10])
def test_median_of_an_even_number_of_songs_is_one_of_the_two_in_the_middle(count: int) -> None:
    chosen = titles_of([float(value) for value in range(count)])
    assert (chosen["best"], chosen["worst"]) == (count - 1, 0)
    assert chosen["median"] in (count / 2 - 1, count / 2)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_songs_of_equal_scores_are_shown_each_once(count: int) -> None:
    assert len(titles_of([4.0] * count)) == min(count, 3)


def test_songs_stand_best_first_and_those_without_a_score_last_by_name() -> None:
    songs = songs_of([NAN, 2.0, NAN, 9.0, 2.0, -INF])
    order = [song.name for song in best_first(songs[::-1])]
    assert order == ["song 3", "song 1", "song 4", "song 0", "song 2", "song 5"]


Shown = tuple[Path, dict[str, Example], dict[str, dict[str, Waveform]]]
EXAMPLE_RATE = 8000
SECONDS = {"Long Song": 15.0, "Short & <b>Mono": 1.5}


@pytest.fixture(scope="module")
def made_examples(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A stereo song of 15 s that is sung from 2 s on, and a mono song of 1.5 s: folder, examples and stems."""
    folder = tmp_path_factory.mktemp("examples")
    random = np.random.default_rng(0)
    stems: dict[str, dict[str, Waveform]] = {}
    for channels, (name, seconds) in zip((2, 1), SECONDS.items(), strict=True):
        shape = (channels, round(seconds * EXAMPLE_RATE))
        vocals, accompaniment = random.uniform(-0.9, 0.9, (2, *shape)).astype(np.float32)
        vocals[:, : 2 * EXAMPLE_RATE if channels == 2 else 0] *= 0.01
        stems[name] = {"vocals": vocals, "accompaniment": accompaniment}
        write_stems(folder / "songs" / "test" / name, stems[name], EXAMPLE_RATE)
    add_model(folder / "models")
    subject = ModelSubject(folder / "models", "1")
    songs = open_dataset(folder / "songs", "folder").split("test")
    return folder, {song.name: make_example(song, subject, folder / "examples" / song.id) for song in songs}, stems


def test_example_has_a_picture_and_a_sound_of_the_excerpts_length_for_everything(made_examples: Shown) -> None:
    _, examples, _ = made_examples
    assert set(examples) == set(SECONDS)
    for channels, (name, seconds) in zip((2, 1), SECONDS.items(), strict=True):
        example = examples[name]
        assert example.name == name
        check_picture(example.picture)
        assert list(example.sounds) == ["mixture", "true vocals", "estimated vocals", "estimated accompaniment"]
        assert len({path.read_bytes() for path in example.sounds.values()}) == 4
        for path in example.sounds.values():
            found, loudest, found_channels = seconds_of_sound(path.read_bytes())
            # Coding to mp3 adds up to three of its frames of 1152 samples.
            assert min(seconds, 12.0) - 0.001 <= found <= min(seconds, 12.0) + 0.08
            assert 0.05 < loudest < 1.1  # coding to mp3 adds a little
            assert found_channels == channels


def decoded(path: Path) -> Array:
    with av.open(path, mode="r") as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def test_sounds_are_the_loudest_singing_at_one_level(made_examples: Shown) -> None:
    _, examples, stems = made_examples
    true = stems["Long Song"]
    mixture = true["vocals"] + true["accompaniment"]
    singing = loudest_span(true["vocals"], EXAMPLE_RATE)
    assert singing.start >= 2 * EXAMPLE_RATE - 100
    # Peaks between the samples count: they are samples at the rate of the mp3.
    peak = np.abs(soxr.resample(mixture[:, singing].T, EXAMPLE_RATE, 44100)).max()
    assert peak > 1
    for name, waveform in (("mixture", mixture), ("true vocals", true["vocals"])):
        power = np.mean(decoded(examples["Long Song"].sounds[name]).astype(np.float64) ** 2)
        expected = np.mean((waveform[:, singing] / peak).astype(np.float64) ** 2)
        assert 10 * np.log10(power / expected) == pytest.approx(0.0, abs=0.5)
    sum_of_parts = sum(
        decoded(examples["Long Song"].sounds[name]) for name in ("estimated vocals", "estimated accompaniment")
    )
    whole = decoded(examples["Long Song"].sounds["mixture"])
    assert np.mean((sum_of_parts - whole) ** 2) < 0.1 * np.mean(whole**2)


def test_page_holds_every_picture_and_sound_and_needs_nothing_else(made_examples: Shown, tmp_path: Path) -> None:
    _, examples, _ = made_examples
    songs = [made_up(name, [float(number)]) for number, name in enumerate(SECONDS)]
    shown = dict(zip(("best", "worst"), examples.values(), strict=True))
    folder = made(tmp_path / "reports" / "one")
    write_report(folder, target_of(tmp_path), songs, {}, shown)
    page = parsed_page(folder / "report.html")
    assert_self_contained(page)
    sounds = [content_of(attributes["src"]) for attributes in page.attributes("audio")]
    assert sounds == [path.read_bytes() for example in shown.values() for path in example.sounds.values()]
    assert all("controls" in attributes for attributes in page.attributes("audio"))
    for number, example in enumerate(shown.values()):
        for sound in sounds[4 * number : 4 * number + 4]:
            assert seconds_of_sound(sound)[0] == pytest.approx(min(SECONDS[example.name], 12.0), abs=0.08)
    pictures = [content_of(attributes["src"]) for attributes in page.attributes("img")]
    assert len(pictures) == len(shown) + 2
    assert pictures[:2] == [example.picture.read_bytes() for example in shown.values()]
    for picture in pictures:
        check_picture(io.BytesIO(picture))
    for title, example in shown.items():
        assert f"{title}: {example.name}" in page.text


@pytest.mark.parametrize(("samples", "level"), [(1, 0.5), (100, 0.5), (4000, 0.0), (4000, 5.0)])
def test_tiny_silent_and_loud_songs_are_shown_all_the_same(tmp_path: Path, samples: int, level: float) -> None:
    stems = {source: np.full((2, samples), level, np.float32) for source in SOURCES}
    write_stems(tmp_path / "songs" / "test" / "Song", stems, EXAMPLE_RATE)
    write_stems(tmp_path / "estimates" / "Song", stems, EXAMPLE_RATE)
    (song,) = open_dataset(tmp_path / "songs", "folder").split("test")
    example = make_example(song, FolderSubject(tmp_path / "estimates"), tmp_path / "examples")
    check_picture(example.picture)
    for path in example.sounds.values():
        assert np.isfinite(decoded(path)).all()
