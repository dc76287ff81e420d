import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from tests.vocsep.evaluation.evaluation_songs import (
    BEST_FIRST,
    INF,
    NAMES,
    NAN,
    NASTY_NAMES,
    add_model,
    made,
    made_up,
    some_songs,
    songs_of,
    target_of,
    write_stems,
)
from tests.vocsep.evaluation.report_pages import assert_self_contained, check_picture, parsed_page, played, table_cells
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.evaluation.examples import Example, make_example
from vocsep.evaluation.report.facts import model_facts
from vocsep.evaluation.report.plots import within_limits
from vocsep.evaluation.report.text import findings
from vocsep.evaluation.report.writing import best_first, example_songs, write_report
from vocsep.evaluation.subjects import FolderSubject, ModelSubject, Subject
from vocsep.html.pictures import ROWS
from vocsep.html.player import Lane, player_json
from vocsep.html.sounds import Mp3Pieces
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.spectrograms.plot import EXCERPT_SECONDS, loudest_span

FINE = load_spectrogram_config("fine")

# Some of the names below have letters that matplotlib's own font lacks; it draws boxes and warns.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning")

# report.html


def content_of(source: str | None) -> bytes:
    return base64.b64decode((source or "").partition(",")[2], validate=True)


def test_page_holds_the_tables_of_the_readable_report_and_loads_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    failures = {"Lost | Tape": "Lost | Tape.wav: no such file"}
    summary = write_report(folder, target_of(tmp_path, seen=[NAMES[0]]), some_songs(), failures)
    page = parsed_page(folder / "report.html")
    assert_self_contained(page)
    markdown = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    lines = [
        [cell.strip("` ") for cell in table_cells(line)]
        for line in markdown
        if line.startswith("|") and not line.startswith("| ---")
    ]
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
    assert page.players == []


def test_head_of_the_page_says_when_with_which_model_and_of_which_songs(tmp_path: Path) -> None:
    description = {
        "created": "2026-01-02T03:04:05+00:00",
        "architecture": {"name": "tfc-tdf", "channels": 2, "width": 24},
        "data": {"dataset": "musdb18", "train": ["a", "b", "c"], "valid": ["d"], "digest": "0123456789abcdef0123"},
        "training": {"steps_done": 3468, "seconds": 2702.5},
        "objective": {"loss": "l1"},
        "licence": "<b>mine</b>",
    }
    target = target_of(tmp_path)
    target = replace(target, models={"model": replace(target.models["model"], description=description)})
    folder = made(tmp_path / "reports" / "one")
    summary = write_report(folder, target, some_songs(), {})
    assert summary["date"].startswith(f"{datetime.now():%Y-}")
    page = parsed_page(folder / "report.html")
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    for text in (summary["date"], "2026-01-02 03:04:05", "tfc-tdf, width 24, stereo", "3468 steps, 2702.5 s, loss l1"):
        assert text in page.text
        assert text in markdown
    assert "3, and 1 for validation, musdb18, digest 0123456789abcdef\n" in page.text
    assert "<b>mine</b>" in page.text


def test_trainings_before_the_last_count() -> None:
    last = {"training": {"steps_done": 20, "seconds": 2.5}}
    assert model_facts(last)["training"] == "20 steps, 2.5 s"
    earlier = [{"steps_done": 100, "seconds": 10.25}, {"steps_done": 3}, "odd"]
    assert model_facts(last | {"earlier_trainings": earlier})["training"] == "123 steps, 12.75 s"


@pytest.mark.parametrize("odd", [None, 3, NAN, True, [], [1, None], {"name": 2}, "</style>"])
def test_odd_descriptions_of_models_are_left_out_or_are_text(odd: Any) -> None:
    for place in ("created", "architecture", "data", "training", "recipe", "targets", "versions", "licence"):
        assert all(isinstance(text, str) and text for text in model_facts({place: odd}).values())
        assert all(
            isinstance(text, str) and text for text in model_facts({place: {"train": odd, "sets": odd}}).values()
        )
        assert model_facts({"training": {"steps_done": 1}, "earlier_trainings": odd})["training"] == "1 steps"
    assert model_facts({}) == {}


def test_scores_beyond_the_limits_of_the_pictures_stand_at_the_edge() -> None:
    shown, is_cut = within_limits([-150.0, NAN, 5.0, 400.0, -INF])
    np.testing.assert_array_equal(shown, [-20.0, NAN, 5.0, 30.0, -20.0])
    assert is_cut
    assert within_limits([NAN, -19.0, 29.0]) == ([pytest.approx(NAN, nan_ok=True), -19.0, 29.0], False)


def test_page_shows_names_that_look_like_html_as_they_are(tmp_path: Path) -> None:
    songs = [made_up(name, [float(number)]) for number, name in enumerate(NASTY_NAMES)]
    songs[0] = made_up(NASTY_NAMES[0], [NAN])
    failures = {f"failed {name}": f"{name}: cannot be read" for name in NASTY_NAMES}
    examples = {}
    for title, name in zip("abcde", NASTY_NAMES, strict=True):
        sound = Mp3Pieces(1, 44100)
        sound.write(np.zeros((1, 500), np.float32))
        sound.finish()
        player = tmp_path / f"{title}.json"
        player.write_text(player_json([Lane(name, "mixture", sound, np.ones((3, FINE.bins), np.float32))], FINE))
        examples[title] = Example("id", name, (0.0, 1.0), player)
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
    assert [player["tracks"][0]["name"] for player in page.players] == list(NASTY_NAMES)
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
    for seed in (0, 1):
        add_model(folder / "models", seed=seed)
    subjects: dict[str, Subject] = {
        row: ModelSubject(folder / "models", number) for row, number in (("model", "1"), ("bundled", "2"))
    }
    songs = open_dataset(folder / "songs", "folder").split("test")
    return folder, {song.name: make_example(song, subjects, folder / "examples") for song in songs}, stems


def held_by(example: Example) -> Any:
    return json.loads(example.player.read_text(encoding="utf-8"))


LANES = (
    ("mixture", "mixture"),
    *(
        (name.format(source), source)
        for source in ("vocals", "accompaniment")
        for name in ("true {}", "{}, model", "{}, bundled model")
    ),
)


def test_example_has_a_lane_with_picture_outline_and_sound_for_truth_and_every_estimate(made_examples: Shown) -> None:
    _, examples, _ = made_examples
    assert set(examples) == set(SECONDS)
    for channels, (name, seconds) in zip((2, 1), SECONDS.items(), strict=True):
        example = examples[name]
        player = held_by(example)
        assert example.name == name
        assert [(track["name"], track["kind"]) for track in player["tracks"]] == list(LANES)
        assert (player["channels"], player["sampleRate"]) == (channels, 44100)
        assert player["frames"] == pytest.approx(min(seconds, 12.0) * 44100, abs=2)
        assert example.seconds[1] - example.seconds[0] == pytest.approx(min(seconds, 12.0))
        sounds = [played(player, track["name"]) for track in player["tracks"]]
        for track, sound in zip(player["tracks"], sounds, strict=True):
            assert 0.05 < np.abs(sound).max() < 1.1  # coding to mp3 adds a little
            assert max(map(max, track["peaks"])) == pytest.approx(1000 * sound.max(), abs=120)
            pixels = matplotlib.image.imread(io.BytesIO(content_of(track["picture"])), format="jpg")
            assert pixels.shape[0] == ROWS
            assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
        assert len({sound.tobytes() for sound in sounds}) == len(LANES)


def test_sounds_are_the_loudest_singing_at_one_level(made_examples: Shown) -> None:
    _, examples, stems = made_examples
    true = stems["Long Song"]
    singing = loudest_span(true["vocals"], EXAMPLE_RATE)
    assert singing.start >= 2 * EXAMPLE_RATE - 100
    assert examples["Long Song"].seconds[0] == singing.start / EXAMPLE_RATE
    player = held_by(examples["Long Song"])
    expected = {"mixture": true["vocals"] + true["accompaniment"]}
    expected |= {f"true {source}": true[source] for source in ("vocals", "accompaniment")}
    # Peaks between the samples count: they are samples at the rate of the mp3.
    resampled = {
        name: soxr.resample(waveform[:, singing].T, EXAMPLE_RATE, 44100).T for name, waveform in expected.items()
    }
    peak = max(np.abs(waveform).max() for waveform in resampled.values())
    assert peak > 1
    for name, waveform in resampled.items():
        sound = played(player, name)
        error = np.mean((sound - waveform / peak) ** 2) / np.mean((waveform / peak) ** 2)
        assert error < 0.02  # in step, and at this level
    for row in ("model", "bundled model"):
        both = sum(played(player, f"{source}, {row}") for source in ("vocals", "accompaniment"))
        whole = played(player, "mixture")
        assert np.mean((both - whole) ** 2) < 0.1 * np.mean(whole**2)


def test_page_holds_every_player_and_needs_nothing_else(made_examples: Shown, tmp_path: Path) -> None:
    _, examples, _ = made_examples
    songs = [made_up(name, [float(number)]) for number, name in enumerate(SECONDS)]
    shown = dict(zip(("best", "worst"), examples.values(), strict=True))
    folder = made(tmp_path / "reports" / "one")
    write_report(folder, target_of(tmp_path), songs, {}, shown)
    page = parsed_page(folder / "report.html")
    assert_self_contained(page)
    assert page.players == [held_by(example) for example in shown.values()]
    for title, example in shown.items():
        assert f"{title}: {example.name}" in page.text


@pytest.mark.parametrize(("samples", "level"), [(1, 0.5), (100, 0.5), (4000, 0.0), (4000, 5.0)])
def test_tiny_silent_and_loud_songs_are_shown_all_the_same(tmp_path: Path, samples: int, level: float) -> None:
    both = np.full((2, samples), level, np.float32)
    stems = {"vocals": both, "accompaniment": both * np.array([[1], [-1]], np.float32)}
    write_stems(tmp_path / "songs" / "test" / "Song", stems, EXAMPLE_RATE)
    write_stems(tmp_path / "estimates" / "Song", stems, EXAMPLE_RATE)
    (song,) = open_dataset(tmp_path / "songs", "folder").split("test")
    player = held_by(make_example(song, {"model": FolderSubject(tmp_path / "estimates")}, tmp_path / "examples"))
    for track in player["tracks"]:
        assert np.isfinite(played(player, track["name"])).all()
