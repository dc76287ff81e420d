import functools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

import vocsep.preprocessing.plot
from storage.errors import UserError
from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.store import SpectrogramStore
from tests.helpers import one_line
from tests.tracks import write_track
from vocsep.preprocessing.plot import COLUMNS, find_track, plot_track, reduced
from vocsep.spectrograms.plot import DYNAMIC_RANGE_DB, draw_spectrograms

RATE, N_FFT, HOP = 8000, 64, 32
BINS = N_FFT // 2
FRAMES_PER_SECOND = 250


def record(track_id: str, name: str) -> TrackRecord:
    return TrackRecord(id=track_id, name=name, split="train", channels=2, frames=1, seconds=1, sources=(), arrays={})


TRACKS = [
    record("actions-south-of-the-water-1a", "Actions - South Of The Water"),
    record("avaluna-waterduct-2b", "AvaLuna - Waterduct"),
    record("water-3c", "Water"),
    record("strasse-4d", 'Straße "100 %" / Ünïcode'),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Actions - South Of The Water", 0),
        ("avaluna-waterduct-2b", 1),
        ("Water", 2),
        ("SOUTH of", 0),
        ("duct", 1),
        ("waterduct-2", 1),
        ('STRASSE "100', 3),
        ("3c", 2),
    ],
)
def test_a_track_is_found_by_id_by_name_or_by_a_part_that_fits_no_other(text: str, expected: int) -> None:
    assert find_track(TRACKS, text) is TRACKS[expected]


@pytest.mark.parametrize(
    ("text", "parts", "absent"),
    [
        ("water", ["several", "AvaLuna - Waterduct", "'Water'"], "Straße"),
        ("nothing like it", ["no such song", "AvaLuna - Waterduct", "Straße"], "more"),
        ("", ["several"], "more"),
    ],
)
def test_what_fits_none_or_several_is_one_line_with_candidates(text: str, parts: list[str], absent: str) -> None:
    message = one_line(lambda: find_track(TRACKS, text), *parts)
    assert absent not in message


def test_of_many_candidates_a_few_are_named() -> None:
    with pytest.raises(UserError, match=r"'song 000', .* and 992 more$"):
        find_track([record(f"id-{number}", f"song {number:03d}") for number in range(1000)], "song")


def test_an_empty_store_is_named_as_such() -> None:
    with pytest.raises(UserError, match="empty"):
        find_track([], "anything")


@pytest.mark.parametrize(("frames", "columns"), [(1, 10), (9, 10), (10, 10), (11, 10), (1234, 10), (1200, 1200)])
def test_reduced_keeps_every_peak_in_its_place_and_averages_channels(frames: int, columns: int) -> None:
    generator = np.random.default_rng(frames)
    spectrogram = generator.random((2, frames, 5)).astype(np.float16)
    found = reduced(spectrogram, columns)
    assert found.shape == (min(frames, columns), 5)
    assert found.dtype == np.float32
    mean = spectrogram.astype(np.float32).mean(axis=0)
    np.testing.assert_array_equal(found.max(axis=0), mean.max(axis=0))
    for bin_number, frame in enumerate(mean.argmax(axis=0)):
        column = found[:, bin_number].argmax()
        assert abs((column + 0.5) / len(found) - (frame + 0.5) / frames) <= 1 / len(found)
    if frames <= columns:
        np.testing.assert_array_equal(found, mean)


def test_a_long_song_is_reduced_a_block_at_a_time(tmp_path: Path) -> None:
    shape = (2, 100_000, 256)
    file = np.lib.format.open_memmap(tmp_path / "long.npy", mode="w+", dtype=np.float16, shape=shape)
    tracemalloc.start()
    reduced(file, COLUMNS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.nbytes > 100e6
    assert peak < 10e6


def tone_store(path: Path, dropped_bin: str, name: str = "A Song") -> tuple[SpectrogramStore, TrackRecord]:
    """Two seconds; from 0.8 to 1.2 s the mixture has a tone of 1000 Hz, the vocals one of 500 Hz and a tenth of it."""
    config = {"sample_rate": RATE, "n_fft": N_FFT, "hop_length": HOP, "channels": 2, "dropped_bin": dropped_bin}
    store = SpectrogramStore.open_or_create(
        path,
        config={"spectrogram": config, "dtype": "float16"},
        dataset={"kind": "folder", "root": "/songs"},
        tool="test",
    )
    first_bin = 1 if dropped_bin == "dc" else 0
    arrays: dict[str, NDArray[Any]] = {key: np.zeros((2, 500, BINS), np.float16) for key in SPECTROGRAMS}
    arrays["mixture"][:, 200:300, 1000 * N_FFT // RATE - first_bin] = 10
    arrays["vocals"][:, 200:300, 500 * N_FFT // RATE - first_bin] = 1
    track = write_track(path, "song-1", name=name, split="train", seconds=2.0, arrays=arrays)
    store.add(track)
    store.save()
    return store, track


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, coarsely, while the test runs."""
    drawn: list[Figure] = []
    monkeypatch.setattr(vocsep.preprocessing.plot, "DPI", 30)
    save = Figure.savefig

    def saved(figure: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", saved)
    return drawn


@pytest.mark.parametrize("dropped_bin", ["dc", "nyquist"])
@pytest.mark.parametrize(("start", "seconds"), [(0.0, None), (0.5, None), (0.4, 1.2)])
def test_tones_stand_at_their_time_and_frequency_in_decibels(
    tmp_path: Path, figures: list[Figure], dropped_bin: str, start: float, seconds: float | None
) -> None:
    store, track = tone_store(tmp_path / "s.zarr", dropped_bin)
    plot_track(store, track, tmp_path / "new" / "picture.png", start=start, seconds=seconds)
    assert imread(tmp_path / "new" / "picture.png").shape[:2] == (225, 300)
    (figure,) = figures
    assert figure.get_suptitle() == "A Song (train)"
    mixture, vocals, accompaniment, colors = figure.axes
    assert [axis.get_title() for axis in (mixture, vocals, accompaniment)] == list(SPECTROGRAMS)
    assert [axis.get_ylabel() for axis in (mixture, vocals, accompaniment)] == ["Hz"] * 3
    assert accompaniment.get_xlabel() == "seconds"
    assert colors.get_ylabel() == "dB"
    for axis, hertz, level in ((mixture, 1000, 0.0), (vocals, 500, -20.0)):
        (image,) = axis.images
        values = np.asarray(image.get_array())
        left, right, low, high = image.get_extent()
        assert (left, right) == (start, start + (seconds or 2 - start))
        assert values.max() == pytest.approx(level, abs=0.01)
        rows, columns = np.nonzero(values > level - 1)
        assert set(low + (rows + 0.5) * (high - low) / values.shape[0]) == {hertz}
        times = left + np.array([columns.min(), columns.max() + 1]) * (right - left) / values.shape[1]
        np.testing.assert_allclose(times, [0.8, 1.2], atol=1 / FRAMES_PER_SECOND)
    assert np.asarray(accompaniment.images[0].get_array()).max() == -DYNAMIC_RANGE_DB
    assert {image.get_clim() for axis in figure.axes[:3] for image in axis.images} == {(-DYNAMIC_RANGE_DB, 0)}


def test_silence_is_drawn(tmp_path: Path) -> None:
    draw_spectrograms(tmp_path / "p.png", {"silence": np.zeros((4, 3))}, seconds=(0, 1), hertz=(0, 4000))
    assert (tmp_path / "p.png").stat().st_size > 1000


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["A$AP $ong", "日本語 \\frac", "x" * 300, "a\nb"])
def test_any_name_can_be_a_title(tmp_path: Path, figures: list[Figure], name: str) -> None:
    store, track = tone_store(tmp_path / "s.zarr", "dc", name)
    plot_track(store, track, tmp_path / "p.png")
    title = figures[0].get_suptitle()
    assert title.startswith(name[:50])
    assert len(title) <= 100
    assert title.endswith("(train)")


INF = float("inf")


@pytest.mark.parametrize(
    ("start", "seconds"), [(2.0, None), (9.0, None), (INF, None), (0.0, 0.0), (1.0, -1.0), (0, INF)]
)
def test_a_stretch_outside_of_the_song_is_one_line(tmp_path: Path, start: float, seconds: float | None) -> None:
    store, track = tone_store(tmp_path / "s.zarr", "dc")
    action = functools.partial(plot_track, store, track, tmp_path / "p.png", start=start, seconds=seconds)
    one_line(action, "'A Song' has 2.0 s")
    assert not (tmp_path / "p.png").exists()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    store, track = tone_store(tmp_path / "s.zarr", "dc")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/p\.png: cannot be written"):
        plot_track(store, track, tmp_path / "file" / "p.png")


@pytest.mark.parametrize("name", ["picture", "picture.gif", "picture.zarr"])
def test_a_picture_of_no_known_format_is_one_line(tmp_path: Path, name: str) -> None:
    store, track = tone_store(tmp_path / "s.zarr", "dc")
    with pytest.raises(UserError, match=rf"{name}: no known picture format.*\.png"):
        plot_track(store, track, tmp_path / name)
    assert not (tmp_path / name).exists()
