import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from storage.errors import UserError
from tests.reference import musdb
from tests.vocsep.evaluation.evaluation_songs import RATE, add_model, random_stems, write_stems
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Song
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.scores import SOURCES, SongScores, summarize
from vocsep.evaluation.song import evaluate_song
from vocsep.evaluation.subjects import FolderSubject, ModelSubject, Subject
from vocsep.metrics.bsseval import METRICS
from vocsep.separation.cache import cached_separator
from vocsep.separation.settings import SeparationSettings
from vocsep.spectrograms.config import load_spectrogram_config

SAMPLES = 1200


def song_of(name: str = "A Song", split: str = "test") -> Song:
    return Song(id="a-song-0", name=name, split=split, mixture=(), vocals=(), accompaniment=())


def estimate(
    folder: Path, song: Song, samples: int = SAMPLES, channels: int = 2, rate: int = RATE
) -> dict[str, Waveform]:
    return FolderSubject(folder).estimate(song, np.zeros((channels, samples), np.float32), rate)


def assert_same(found: dict[str, Waveform], expected: dict[str, Waveform]) -> None:
    assert set(found) == set(SOURCES)
    for source in SOURCES:
        assert found[source].dtype == np.float32
        np.testing.assert_array_equal(found[source], expected[source])


# Where estimates are found


@pytest.mark.parametrize(
    ("split", "place"),
    [
        ("test", "test"),
        ("test", "."),
        ("train", "train"),
        ("train", "."),
        ("valid", "valid"),
        ("valid", "train"),  # musdb has its validation songs among the training songs
        ("valid", "."),
    ],
)
def test_song_is_found_in_the_folder_of_its_split_or_in_none(tmp_path: Path, split: str, place: str) -> None:
    stems = random_stems(0, SAMPLES)
    song = song_of("Zoë & Co. - “Où?” 歌 [live]", split)
    write_stems(tmp_path / place / song.name, stems)
    assert_same(estimate(tmp_path, song), stems)


def test_folder_of_the_songs_own_split_comes_first(tmp_path: Path) -> None:
    stems = {place: random_stems(seed, SAMPLES) for seed, place in enumerate(("valid", "train", "."))}
    song = song_of(split="valid")
    for place in (".", "train", "valid"):
        write_stems(tmp_path / place / song.name, stems[place])
        assert_same(estimate(tmp_path, song), stems[place])


@pytest.mark.parametrize(("split", "place"), [("test", "train"), ("test", "valid"), ("train", "test")])
def test_estimate_in_another_split_is_not_taken(tmp_path: Path, split: str, place: str) -> None:
    write_stems(tmp_path / place / "A Song", random_stems(0, SAMPLES))
    with pytest.raises(UserError, match="no estimates of 'A Song'"):
        estimate(tmp_path, song_of(split=split))


def test_stems_may_be_any_audio_and_their_names_of_any_case(tmp_path: Path) -> None:
    (tmp_path / "A Song").mkdir()
    # Multiples of 1/32768, which 16 bits hold.
    integers = np.random.default_rng(0).integers(-32768, 32767, (2, 2, SAMPLES))
    stems = {source: (values / 32768).astype(np.float32) for source, values in zip(SOURCES, integers, strict=True)}
    soundfile.write(tmp_path / "A Song" / "Vocals.WAV", stems["vocals"].T, RATE, subtype="PCM_16", format="WAV")
    soundfile.write(tmp_path / "A Song" / "accompaniment.flac", stems["accompaniment"].T, RATE, subtype="PCM_16")
    assert_same(estimate(tmp_path, song_of()), stems)


# What the accompaniment is


def test_accompaniment_is_the_sum_of_the_other_stems_where_it_is_not_given(tmp_path: Path) -> None:
    stems = {name: values["vocals"] for name, values in ((n, random_stems(i, SAMPLES)) for i, n in enumerate(STEMS))}
    write_stems(tmp_path / "A Song", stems | {"mixture": np.ones((2, SAMPLES), np.float32)})
    found = estimate(tmp_path, song_of())
    np.testing.assert_array_equal(found["vocals"], stems["vocals"])
    expected = sum(stems[name].astype(np.float64) for name in ("drums", "bass", "other"))
    np.testing.assert_allclose(found["accompaniment"], expected, rtol=0, atol=1e-6)


STEMS = ("vocals", "drums", "bass", "other")


def test_given_accompaniment_comes_before_other_stems_and_the_mixture_counts_for_nothing(tmp_path: Path) -> None:
    stems = random_stems(0, SAMPLES)
    others = {name: np.ones((2, SAMPLES), np.float32) for name in ("drums", "bass", "other", "mixture")}
    write_stems(tmp_path / "A Song", stems | others)
    assert_same(estimate(tmp_path, song_of()), stems)


def test_one_other_stem_is_accompaniment_enough(tmp_path: Path) -> None:
    stems = random_stems(0, SAMPLES)
    write_stems(tmp_path / "A Song", {"vocals": stems["vocals"], "instrumental": stems["accompaniment"]})
    assert_same(estimate(tmp_path, song_of()), stems)


# Nothing is fixed


@pytest.mark.parametrize(("channels", "level"), [(1, 1e-6), (2, 1.0), (2, 7.5)])
def test_samples_are_those_of_the_files_at_any_level(tmp_path: Path, channels: int, level: float) -> None:
    stems = {source: level * values for source, values in random_stems(0, SAMPLES, channels=channels).items()}
    write_stems(tmp_path / "A Song", stems)
    assert_same(estimate(tmp_path, song_of(), channels=channels), stems)


def replaced(
    *, samples: int = SAMPLES, channels: int = 2, rate: int = RATE, value: float | None = None
) -> Callable[[Path], None]:
    """A function that writes such a file in place of another."""

    def write(path: Path) -> None:
        waveform = np.random.default_rng(1).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)
        if value is not None:
            waveform[samples // 2, channels - 1] = value
        soundfile.write(path, waveform, rate, subtype="FLOAT")

    return write


MISTAKES: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "another rate": (replaced(rate=2 * RATE), ("16000 Hz", "8000 Hz")),
    "one sample less": (replaced(samples=SAMPLES - 1), ("2 channels of 1199 samples", "2 of 1200")),
    "one sample more": (replaced(samples=SAMPLES + 1), ("2 channels of 1201 samples", "2 of 1200")),
    "mono": (replaced(channels=1), ("1 channels of 1200 samples", "2 of 1200")),
    "surround": (replaced(channels=3), ("3 channels of 1200 samples", "2 of 1200")),
    "NaN": (replaced(value=float("nan")), ("NaN or infinite",)),
    "infinite": (replaced(value=float("-inf")), ("NaN or infinite",)),
    "no audio": (lambda path: path.write_bytes(b"no audio at all"), ("cannot be read as audio",)),
    "empty": (lambda path: path.write_bytes(b""), ("cannot be read as audio",)),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:2000]), ("cut off",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("stem", ["vocals", "accompaniment", "drums"])
def test_file_that_does_not_go_with_the_song_is_refused_in_one_line_that_names_it(
    tmp_path: Path, stem: str, mistake: str
) -> None:
    stems = random_stems(0, SAMPLES)
    if stem == "drums":
        stems = {"vocals": stems["vocals"], "bass": stems["accompaniment"], "drums": stems["accompaniment"]}
    write_stems(tmp_path / "test" / "A Song", stems)
    path = tmp_path / "test" / "A Song" / f"{stem}.wav"
    spoil, messages = MISTAKES[mistake]
    spoil(path)
    with pytest.raises(UserError) as error:
        estimate(tmp_path, song_of())
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert all(message in text for message in messages)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("stems", "missing"),
    [
        (("accompaniment",), "vocals missing"),
        (("drums", "bass", "other"), "vocals missing"),
        (("mixture",), "vocals missing"),
        ((), "vocals missing"),
        (("vocals",), "accompaniment (or other stems) missing"),
        (("vocals", "mixture"), "accompaniment (or other stems) missing"),
    ],
)
def test_missing_source_is_one_line_that_names_folder_and_source(
    tmp_path: Path, stems: tuple[str, ...], missing: str
) -> None:
    folder = tmp_path / "test" / "A Song"
    write_stems(folder, {stem: np.ones((2, SAMPLES), np.float32) for stem in stems})
    with pytest.raises(UserError) as error:
        estimate(tmp_path, song_of())
    assert str(error.value).startswith(f"{folder}: {missing}")
    assert "\n" not in str(error.value)


def test_song_without_a_folder_is_one_line_that_names_both(tmp_path: Path) -> None:
    write_stems(tmp_path / "test" / "Another Song", random_stems(0, SAMPLES))
    (tmp_path / "test" / "A Song").write_text("a file, no folder")
    with pytest.raises(UserError) as error:
        estimate(tmp_path, song_of())
    text = str(error.value)
    assert text.startswith(f"{tmp_path}: no estimates of 'A Song'")
    assert str(tmp_path / "test" / "A Song") in text
    assert "\n" not in text


def test_refused_estimate_leaves_no_file_of_scores(demo_root: Path, tmp_path: Path) -> None:
    song = open_dataset(demo_root).split("test")[0]
    write_stems(tmp_path / "estimates" / song.name, random_stems(0, SAMPLES), 44100)
    with pytest.raises(UserError, match="of 1200 samples, the song has 2 of"):
        evaluate_song(song, {"model": FolderSubject(tmp_path / "estimates")}, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_ceilings_beside_a_folder_are_those_of_fine_and_beside_a_model_its_own(tmp_path: Path) -> None:
    add_model(tmp_path / "models")
    assert FolderSubject(tmp_path).spectrogram == load_spectrogram_config("fine")
    assert ModelSubject(tmp_path / "models", "1").spectrogram == load_spectrogram_config("fine")
    description = json.loads((tmp_path / "models" / "0001" / "model.json").read_text())
    description["spectrogram"] = load_spectrogram_config("notebook").model_dump(mode="json")
    del description["description_sha256"]
    (tmp_path / "models" / "0001").rename(tmp_path / "other")
    (tmp_path / "other" / "model.json").write_text(json.dumps(description))
    assert ModelSubject(tmp_path, str(tmp_path / "other")).spectrogram == load_spectrogram_config("notebook")


# A model's estimates, written to files, score like the model


@pytest.fixture(scope="module")
def scores_of_saved(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[SongScores]:
    """Both demo test songs, scored as a model and, in more rows, as what was written of its estimates."""
    folder = tmp_path_factory.mktemp("saved")
    add_model(folder / "models")
    dataset = open_dataset(demo_root)
    separate = cached_separator(folder / "models", SeparationSettings(model="1", precision="32")).separate
    for song in dataset.split("test"):
        sources, sample_rate = read_sources(song, ("mixture",))
        write_stems(folder / "float" / "test" / song.name, separate(sources["mixture"], sample_rate), sample_rate)
    # Written by musdb's own program from musdb's own tracks and their audio.
    database = musdb.DB(root=str(demo_root), subsets=["test"])
    for track in database:
        stems = separate(track.audio.T.astype(np.float32), track.rate)
        database.save_estimates({name: stem.T for name, stem in stems.items()}, track, str(folder / "musdb"))
    subjects: dict[str, Subject] = {
        "model": ModelSubject(folder / "models", "1"),
        "float": FolderSubject(folder / "float"),
        "musdb": FolderSubject(folder / "musdb"),
    }
    return [evaluate_song(song, subjects, folder / "report") for song in dataset.split("test")]


def test_models_estimates_read_from_float_files_score_like_the_model(scores_of_saved: list[SongScores]) -> None:
    for song in scores_of_saved:
        for source in SOURCES:
            model, folder = (song.rows[row][source] for row in ("model", "float"))
            assert np.isfinite(model["SDR"]).any()
            for metric in METRICS:
                np.testing.assert_allclose(folder[metric], model[metric], rtol=0, atol=1e-3)
            assert song.whole["float"][source] == pytest.approx(song.whole["model"][source], abs=1e-3)


def test_folder_that_musdbs_own_save_estimates_wrote_scores_like_the_model(scores_of_saved: list[SongScores]) -> None:
    # musdb writes 16 bits, and their rounding is far below the model's errors.
    for song in scores_of_saved:
        for source in SOURCES:
            model, folder = (song.rows[row][source]["SDR"] for row in ("model", "musdb"))
            np.testing.assert_allclose(folder, model, rtol=0, atol=1e-3)
            assert song.whole["musdb"][source] == pytest.approx(song.whole["model"][source], abs=1e-3)


@pytest.mark.parametrize("way", ["float", "musdb"])
def test_summary_of_written_estimates_is_that_of_the_model(scores_of_saved: list[SongScores], way: str) -> None:
    summary = summarize(scores_of_saved)
    for source in SOURCES:
        for aggregation, value in summary["model"][source]["SDR"].items():
            assert value is not None
            assert summary[way][source]["SDR"][aggregation] == pytest.approx(value, abs=1e-3)


def test_songs_that_a_folder_lacks_fail_alone(demo_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(demo_root)
    first, second = dataset.split("test")
    sources, sample_rate = read_sources(first, SOURCES)
    write_stems(tmp_path / "estimates" / "test" / first.name, sources, sample_rate)
    subject = FolderSubject(tmp_path / "estimates")
    assert_same(subject.estimate(first, sources["vocals"], sample_rate), sources)
    with pytest.raises(UserError, match="no estimates of"):
        subject.estimate(second, sources["vocals"], sample_rate)
