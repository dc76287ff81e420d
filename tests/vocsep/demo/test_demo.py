import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from storage.errors import UserError
from tests.helpers import decibels, one_line
from tests.reference import musdb
from vocsep.demo import dataset as demo
from vocsep.demo.dataset import FIRST_TEST_INDEX, STEMS, held_settings, make_demo, song_seconds, synthesize_song
from vocsep.demo.names import song_name
from vocsep.demo.song import VOICES, plan_song

RATE = 44100
SHORT = (3.0, 3.5)
Floats = NDArray[np.floating]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of one training and one test song."""
    root = tmp_path_factory.mktemp("small") / "demo"
    make_demo(root, train_songs=1, test_songs=1, seconds=SHORT, workers=1)
    return root


def decode(path: Path, stream: int) -> Floats:
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.audio[stream])
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def songs_in(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.stem.mp4"))}


@pytest.mark.parametrize("index", [0, 1, FIRST_TEST_INDEX])
def test_stems_sum_to_the_mixture_and_stay_below_0_9(index: int) -> None:
    song = synthesize_song(0, index, 3.0)
    assert list(song) == ["mixture", *STEMS]
    assert all(x.shape == (2, 3 * RATE) and x.dtype == np.float32 for x in song.values())
    assert np.array_equal(song["mixture"], song["drums"] + song["bass"] + song["other"] + song["vocals"])
    assert all(0.01 < np.abs(x).max() < 0.9 for x in song.values())
    assert -6 < decibels(song["vocals"], song["mixture"] - song["vocals"]) < 0


def test_same_seed_gives_the_same_samples_and_another_seed_or_index_gives_others() -> None:
    first, again = synthesize_song(3, 1, 2.0), synthesize_song(3, 1, 2.0)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for other in (synthesize_song(4, 1, 2.0), synthesize_song(3, 2, 2.0)):
        assert all(np.abs(first[name] - other[name]).max() > 0.01 for name in first)


def test_rate_and_shortest_length_are_free_within_limits_and_refused_beyond() -> None:
    assert synthesize_song(0, 0, 1.0, 11025)["vocals"].shape == (2, 11025)
    for seed, index, seconds, rate in ((0, 0, 0.5, RATE), (-1, 0, 3.0, RATE), (0, -1, 3.0, RATE), (0, 0, 3.0, 10)):
        with pytest.raises(ValueError, match=r"."):
            synthesize_song(seed, index, seconds, rate)


def test_names_are_ascii_and_distinct_and_depend_on_the_seed() -> None:
    indices = [*range(500), *range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + 500)]
    names = [song_name(0, i) for i in indices]
    assert len(set(names)) == len(names)
    assert all(n.isascii() and n.count(" - ") == 1 for n in names)
    assert song_name(1, 0) != song_name(0, 0)


def test_lengths_lie_between_the_bounds_and_differ() -> None:
    lengths = [song_seconds(0, i, (20.0, 30.0)) for i in range(12)]
    assert all(20 <= s <= 30 for s in lengths)
    assert len(set(lengths)) > 8
    assert song_seconds(0, 0, (3.0, 3.0)) == 3.0


def test_every_four_songs_have_the_four_voices_and_a_long_rest_each() -> None:
    for first in (0, 4, FIRST_TEST_INDEX):
        songs = [plan_song(0, first + i, 20.0) for i in range(4)]
        assert sorted(s.voice for s in songs) == sorted(VOICES)
        assert all(80 <= s.tempo <= 150 for s in songs)
        for song in songs:
            starts = [*(n.start for n in song.notes[1:]), 20.0]
            assert max(b - n.end for n, b in zip(song.notes, starts, strict=True)) >= 2
            sung = sum(min(n.end, 20.0) - n.start for n in song.notes)
            assert 0.35 < sung / 20 < 0.85


@pytest.mark.parametrize("index", range(4))
def test_voice_sings_the_planned_notes_within_its_compass(index: int) -> None:
    song = plan_song(0, index, 6.0)
    low, high, _, _ = VOICES[song.voice]
    assert all(low <= n.midi <= high for n in song.notes)
    voice = synthesize_song(0, index, 6.0)["vocals"].mean(axis=0).astype(float)
    errors = []
    for note in song.notes:
        # The pitch around the middle, by autocorrelation, within half an octave of what is expected.
        middle = int((note.start + note.end) / 2 * RATE)
        x = voice[middle - 3000 : middle + 3000]
        if note.end - note.start < 0.25 or len(x) < 6000:
            continue
        hertz = 440 * 2 ** ((note.midi - 69) / 12)
        power = np.abs(np.fft.rfft(x * np.hanning(6000), 16384)) ** 2
        lags = np.arange(int(RATE / hertz / 1.4), int(RATE / hertz * 1.4))
        found = RATE / lags[np.argmax(np.fft.irfft(power)[lags])]
        errors.append(12 * np.log2(found / hertz))
    assert len(errors) >= 3
    assert abs(np.median(errors)) < 0.4
    assert np.max(np.abs(errors)) < 1.5  # the vibrato's depth and a glide


def test_voice_is_silent_in_rests_sings_in_between_and_keeps_to_the_band_of_a_voice() -> None:
    voice = synthesize_song(0, 1, 12.0)["vocals"].mean(axis=0).astype(float)
    blocks = np.sqrt(np.mean(voice[: 12 * RATE].reshape(120, -1) ** 2, axis=1))
    loud, silent = blocks > 0.1 * blocks.max(), blocks < 0.003 * blocks.max()
    assert 0.25 < loud.mean() < 0.85
    assert silent.mean() > 0.1
    assert max(len(run) for run in "".join("r" if s else " " for s in silent).split()) >= 10
    power, hertz = np.abs(np.fft.rfft(voice)) ** 2, np.fft.rfftfreq(len(voice), 1 / RATE)
    assert power[hertz < 90].sum() < 0.01 * power.sum()
    assert power[hertz > 10000].sum() < 0.02 * power.sum()
    assert power[(hertz > 100) & (hertz < 4000)].sum() > 0.9 * power.sum()


def test_musdb_opens_the_demo_with_its_splits_and_five_streams(small: Path) -> None:
    tracks = musdb.DB(root=str(small)).tracks
    assert [(t.name, t.subset) for t in tracks] == [
        (song_name(0, 0), "train"),
        (song_name(0, FIRST_TEST_INDEX), "test"),
    ]
    for track in tracks:
        assert track.rate == RATE
        assert track.stems.shape[0] == 5
        assert track.stems.shape[2] == 2


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("test", FIRST_TEST_INDEX)])
def test_decoded_streams_match_the_synthesised_song_sample_by_sample(small: Path, split: str, index: int) -> None:
    (path,) = (small / split).glob("*.stem.mp4")
    song = synthesize_song(0, index, song_seconds(0, index, SHORT))
    for stream, name in enumerate(song):
        decoded = decode(path, stream)
        assert decoded.shape == song[name].shape
        assert decibels(song[name], song[name] - decoded) > 15
    decoded = decode(path, 4).mean(axis=0)
    across = np.fft.irfft(np.fft.rfft(decoded) * np.conj(np.fft.rfft(song["vocals"].mean(axis=0))))
    assert np.argmax(across) == 0


def test_complete_demo_is_not_made_again_and_a_lost_song_is(small: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    made: list[tuple[float, float]] = []
    again = make_demo(small, train_songs=1, test_songs=1, seconds=SHORT, progress=lambda *done: made.append(done))
    assert not made
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before
    assert all(p.exists() for p in again)
    expected = {"generator": 1, "seed": 0, "train_songs": 1, "test_songs": 1, "seconds": list(SHORT)}
    assert json.loads((small / "demo.json").read_text()) == expected
    content = again[0].read_bytes()
    again[0].unlink()
    make_demo(small, train_songs=1, test_songs=1, seconds=SHORT, progress=lambda *done: made.append(done))
    assert made == [(1, 1)]
    assert again[0].read_bytes() == content


def test_killed_run_leaves_whole_songs_and_a_second_run_finishes_with_the_same_bytes(
    small: Path, tmp_path: Path
) -> None:
    root = tmp_path / "demo"
    code = (
        "import sys; from pathlib import Path; from vocsep.demo.dataset import make_demo; "
        "make_demo(Path(sys.argv[1]), train_songs=5, test_songs=1, seconds=(3.0, 3.5), workers=2, "
        "progress=lambda done, total: print(done, flush=True))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline()
    run.send_signal(signal.SIGKILL)
    # The pipe closes when the last worker has gone, too.
    run.communicate(timeout=600)
    assert run.returncode == -signal.SIGKILL
    assert not (root / "demo.json").exists()
    before = songs_in(root)
    assert 1 <= len(before) < 6
    for name in before:
        assert all(decode(root / name, stream).shape[1] >= 3 * RATE for stream in range(5))
    with pytest.raises(UserError, match="other settings"):
        make_demo(root, seed=1, train_songs=5, test_songs=1, seconds=SHORT, workers=1)

    paths = make_demo(root, train_songs=5, test_songs=1, seconds=SHORT, workers=1)
    after = songs_in(root)
    assert sorted(after) == sorted(str(p.relative_to(root)) for p in paths)
    assert len(after) == 6
    assert before.items() <= after.items()
    # Neither the number of songs nor that of workers matters.
    assert songs_in(small).items() <= after.items()
    assert not list(root.rglob(".*"))


def test_other_settings_are_refused_on_a_demo(small: Path) -> None:
    before = songs_in(small)
    for other in ({"seed": 1}, {"train_songs": 2}, {"seconds": (3.0, 4.0)}):
        settings = {"seed": 0, "train_songs": 1, "test_songs": 1, "seconds": SHORT, **other}
        one_line(lambda settings=settings: make_demo(small, **settings), "other settings")  # type: ignore[misc]
    assert songs_in(small) == before


def test_settings_of_a_demo_are_those_that_make_it_again(small: Path, tmp_path: Path) -> None:
    before = songs_in(small)
    make_demo(small, **held_settings(small))
    assert songs_in(small) == before
    assert held_settings(tmp_path) == {}
    for content in ("", "[]", "null", '{"generator": 1}', '{"generator": 1, "seed": "x", "seconds": 3}'):
        (tmp_path / "demo.json").write_text(content)
        assert held_settings(tmp_path) == {}


def test_foreign_folder_or_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        make_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="is a file"):
        make_demo(tmp_path / "mine.txt")


def test_settings_out_of_range_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    for bad in (
        {"seed": -1},
        {"train_songs": 0, "test_songs": 0},
        {"seconds": (5.0, 4.0)},
        {"seconds": (0.2, 4.0)},
        {"seconds": (float("nan"), 4.0)},
        {"workers": 0},
    ):
        with pytest.raises(UserError, match="demo: "):
            make_demo(root, **bad)
    assert not root.exists()


def test_failed_song_leaves_no_file_and_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, streams: list[Floats]) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(demo, "_encode", broken)
    with pytest.raises(OSError, match="disk full"):
        make_demo(tmp_path / "demo", train_songs=1, test_songs=0, seconds=SHORT, workers=1)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".demo-started.json"]
