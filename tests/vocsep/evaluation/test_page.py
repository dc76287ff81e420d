import base64
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray

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
from tests.vocsep.evaluation.report_pages import Page, check_picture, parsed_page, table_cells
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.evaluation.examples import SOUNDS, Example, make_example
from vocsep.evaluation.report.plots import plot_over_time
from vocsep.evaluation.report.text import findings
from vocsep.evaluation.report.writing import best_first, example_songs, write_report
from vocsep.evaluation.subjects import FolderSubject, ModelSubject
from vocsep.spectrograms.plot import EXCERPT_SECONDS, loudest_span

Array = NDArray[Any]

# Some of the names below have letters that matplotlib's own font lacks; it draws boxes and warns.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning")

# report.html


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
    both = np.full((2, samples), level, np.float32)
    stems = {"vocals": both, "accompaniment": both * np.array([[1], [-1]], np.float32)}
    write_stems(tmp_path / "songs" / "test" / "Song", stems, EXAMPLE_RATE)
    write_stems(tmp_path / "estimates" / "Song", stems, EXAMPLE_RATE)
    (song,) = open_dataset(tmp_path / "songs", "folder").split("test")
    example = make_example(song, FolderSubject(tmp_path / "estimates"), tmp_path / "examples")
    check_picture(example.picture)
    for path in example.sounds.values():
        assert np.isfinite(decoded(path)).all()
