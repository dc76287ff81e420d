"""Songs on the disk: what is found again, what is too old, what is none; names for downloads; peaks and pictures."""

import io
import json
import zipfile
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tests.helpers import one_line
from vocsep.html.peaks import Peaks
from vocsep.html.pictures import ROWS, draw_mask, draw_spectrogram, log_rows, shown_band
from vocsep.page.downloads import download_name, title, zipped
from vocsep.page.options import TakeOptions
from vocsep.page.songs import KEEP_SECONDS, MOST_TAKES, Songs, shown_name
from vocsep.spectrograms.config import load_spectrogram_config

FINE = load_spectrogram_config("fine")


def added(songs: Songs, name: str = "song.wav") -> str:
    song = songs.new_id()
    songs.upload(song).write_bytes(b"sound")
    return songs.add(song, name, 5, TakeOptions()).id


def test_a_new_start_finds_songs_as_they_were_and_what_was_being_separated_waits_again(tmp_path: Path) -> None:
    songs = Songs(tmp_path)
    first, second = added(songs, "first"), added(songs, "second")
    third = songs.add_take(first, TakeOptions(format="mp3")).id

    def begin(take: object) -> None:
        take.state = "running"  # type: ignore[attr-defined]

    songs.update(second, 1, begin)
    again = Songs(tmp_path)
    assert {song.id: song.name for song in again.listed()} == {first: "first", second: "second"}
    order = []
    while waiting := again.next_waiting():
        order.append((waiting[0].id, waiting[1].id))
        again.remove_take(*order[-1])
    assert order == [(first, 1), (second, 1), (first, third)]
    assert again.listed() == []
    assert list(tmp_path.iterdir()) == []  # a song goes with its last take


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"id": "../../etc", "name": "x", "size": 1, "created": 1}'])
def test_what_is_no_song_goes_and_other_files_stay(tmp_path: Path, record: str) -> None:
    songs = Songs(tmp_path)
    song = added(songs)
    broken, unfinished = tmp_path / ("0" * 16), tmp_path / ("f" * 16)
    for folder in (broken, unfinished, tmp_path / "mine"):
        folder.mkdir()
        (folder / "upload").write_bytes(b"sound")
    (broken / "song.json").write_text(record)
    (tmp_path / "notes.txt").write_text("mine")
    assert [one.id for one in Songs(tmp_path).listed()] == [song]
    assert {entry.name for entry in tmp_path.iterdir()} == {song, "mine", "notes.txt"}


def test_a_link_in_place_of_a_song_is_deleted_and_never_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("")
    folder = tmp_path / "songs"
    folder.mkdir()
    (folder / ("a" * 16)).symlink_to(target)
    assert Songs(folder).listed() == []
    assert (target / "kept").exists()


def test_songs_are_old_after_a_day(tmp_path: Path) -> None:
    songs = Songs(tmp_path)
    song = added(songs)
    created = songs.listed()[0].created
    assert songs.old(created + KEEP_SECONDS - 1) == []
    assert songs.old(created + KEEP_SECONDS + 1) == [song]


def test_no_song_has_takes_without_end(tmp_path: Path) -> None:
    songs = Songs(tmp_path)
    song = added(songs)
    for _ in range(MOST_TAKES - 1):
        songs.add_take(song, TakeOptions())
    one_line(lambda: songs.add_take(song, TakeOptions()), "song.wav", MOST_TAKES)
    one_line(lambda: songs.add_take("0" * 16, TakeOptions()), "no longer there")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("song.mp3", "song.mp3"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Music\\song.mp3", "song.mp3"),
        ("a\nb\x1b[31m\u202ec.wav", "a b [31m c.wav"),
        ("", "unnamed"),
        ("/", "unnamed"),
        ("ü" * 300, "ü" * 200),
    ],
)
def test_names_are_shown_in_one_line_of_letters(name: str, shown: str) -> None:
    assert shown_name(name) == shown


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("song.mp3", "song - vocals.wav"),
        ("demo.stem.mp4", "demo - vocals.wav"),
        ('a:b*c?"<>|.flac', "a_b_c_____ - vocals.wav"),
        ("Mr. Blue", "Mr. Blue - vocals.wav"),
        ("...", "song - vocals.wav"),
        ("曲.ogg", "曲 - vocals.wav"),
        ("a" + "曲" * 100, "a" + "曲" * 66 + " - vocals.wav"),  # of three bytes each; file systems take 255
    ],
)
def test_downloads_are_called_after_the_song(name: str, file: str) -> None:
    assert download_name(name, "vocals", "vocals.wav") == file
    assert len(download_name(name, "accompaniment", "accompaniment.flac").encode()) < 255
    assert "/" not in title(name)


def test_zipped_files_are_what_they_were_and_none_takes_anothers_place(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    contents = [random.bytes(size) for size in (0, 10, 700_000)]
    files = []
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
        files.append(("song/vocals.wav", tmp_path / str(number)))
    blocks = list(zipped(files))
    assert max(map(len, blocks)) < 400_000  # never a whole file
    with zipfile.ZipFile(io.BytesIO(b"".join(blocks))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["song/vocals.wav", "song-2/vocals.wav", "song-3/vocals.wav"]
        assert [archive.read(name) for name in archive.namelist()] == contents


def test_peaks_are_the_extremes_of_each_stretch_however_the_sound_comes() -> None:
    random = np.random.default_rng(0)
    samples = 512 * 3000
    waveform = random.uniform(-0.9, 0.9, (2, samples)).astype(np.float32)
    waveform[1, 512 * 7 + 3], waveform[0, -1] = 0.95, -0.97
    whole, parts = Peaks(), Peaks()
    whole.add(waveform)
    for start in range(0, samples, 70_001):
        parts.add(waveform[:, start : start + 70_001])
    pairs = np.array(whole.columns(1500)) / 1000
    np.testing.assert_array_equal(parts.columns(1500), whole.columns(1500))
    stretches = waveform.reshape(2, 1500, 1024)
    np.testing.assert_allclose(pairs[:, 0], stretches.min(axis=(0, 2)), atol=6e-4)
    np.testing.assert_allclose(pairs[:, 1], stretches.max(axis=(0, 2)), atol=6e-4)
    few = Peaks()
    few.add(np.array([[0.5, -0.25, 3.0]], dtype=np.float32))
    assert few.columns() == [[-250, 1000]]
    assert Peaks().columns() == []


@pytest.mark.parametrize("hertz", [110.0, 440.0, 1000.0, 4000.0])
def test_a_tone_lies_at_its_place_on_the_logarithmic_axis(tmp_path: Path, hertz: float) -> None:
    spacing = FINE.sample_rate / FINE.n_fft
    columns = np.full((30, FINE.bins), 1e-5, dtype=np.float32)
    columns[:, round(hertz / spacing) - 1] = 1.0  # the first bin is number 1
    low, high = shown_band(FINE)
    expected = ROWS * (1 - np.log(hertz / low) / np.log(high / low))
    brightest = int(log_rows(columns, FINE)[:, 0].argmax())
    assert abs(brightest + 0.5 - expected) < 0.6 + ROWS * np.log1p(spacing / hertz) / np.log(high / low)
    draw_spectrogram(tmp_path / "tone.png", columns, FINE, top=1.0)
    pixels = matplotlib.image.imread(tmp_path / "tone.png")
    assert pixels.shape[:2] == (ROWS, 30)
    assert pixels[:, 5, :3].sum(axis=1).argmax() == brightest
    draw_mask(tmp_path / "mask.png", columns, FINE)
    mask = matplotlib.image.imread(tmp_path / "mask.png")
    assert mask[brightest, 5, 3] == 1.0
    assert mask[brightest + 40 if brightest < 80 else brightest - 40, 5, 3] == 0.0


def test_records_hold_no_more_than_they_should(tmp_path: Path) -> None:
    songs = Songs(tmp_path)
    song = added(songs, "ü.wav")
    record = json.loads((tmp_path / song / "song.json").read_text(encoding="utf-8"))
    assert record.keys() == {"id", "name", "size", "created", "takes"}
    record["more"] = 1
    (tmp_path / song / "song.json").write_text(json.dumps(record))
    assert Songs(tmp_path).listed() == []
