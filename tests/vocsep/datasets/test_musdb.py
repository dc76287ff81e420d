"""MUSDB18, its preview and its HQ form, compared with what the musdb package reads."""

import shutil
import tempfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from tests.reference import musdb
from tests.vocsep.datasets.folders import ALL, STEMS, Floats, splits_of
from vocsep.datasets.layouts import musdb_table, open_dataset
from vocsep.datasets.sources import read_sources


def musdb_splits(root: Path, is_wav: bool = False) -> dict[str, tuple[str, Path]]:
    """Name to split and path of every song, as musdb itself says."""
    database = musdb.DB(root=str(root), is_wav=is_wav)
    valid = set(database.setup["validation_tracks"])
    return {
        track.name: ("valid" if track.subset == "train" and track.name in valid else track.subset, Path(track.path))
        for track in database.tracks
    }


def test_preview_has_the_names_paths_splits_and_validation_songs_of_musdb(preview_root: Path) -> None:
    dataset = open_dataset(preview_root)
    assert dataset.kind == "musdb18"
    assert dataset.problems == {}
    found = {song.name: (song.split, song.mixture[0].path) for song in dataset.songs}
    expected = {name: (split, path.resolve()) for name, (split, path) in musdb_splits(preview_root).items()}
    assert found == expected
    assert len(found) == len(dataset.songs)
    for song in dataset.songs:
        assert {part.path for part in (*song.vocals, *song.accompaniment)} == {song.mixture[0].path}


def as_musdb_reads(song: Path, is_wav: bool = False) -> dict[str, Floats]:
    """Sources of a song, a stem file or a folder of wav files, `(channels, samples)`."""
    # A database of this song alone: musdb asks ffprobe about every file that it finds.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / song.parent.name / song.name
        if is_wav:
            shutil.copytree(song, copy)
        else:
            copy.parent.mkdir()
            copy.symlink_to(song)
        (track,) = musdb.DB(root=folder, is_wav=is_wav)
        return {
            "mixture": track.audio.T,
            "vocals": track.targets["vocals"].audio.T,
            "accompaniment": track.targets["accompaniment"].audio.T,
        }


@pytest.mark.parametrize("split", ["valid", "test"])
def test_preview_song_has_the_samples_that_musdb_reads(preview_root: Path, split: str) -> None:
    song = open_dataset(preview_root).split(split)[0]
    expected = as_musdb_reads(song.mixture[0].path)
    found, rate = read_sources(song, ALL)
    assert rate == 44100
    assert [part.stream for part in (*song.mixture, *song.vocals)] == [0, 4]
    for name, parts in (("mixture", 1), ("vocals", 1), ("accompaniment", 3)):
        assert found[name].shape == expected[name].shape
        # musdb rounds each of the parts to 16 bits; the largest of these is 1 - 2^-15.
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=parts * 1.01 * 2.0**-15)


def test_demo_is_a_musdb18_dataset_with_one_validation_song(demo_root: Path) -> None:
    dataset = open_dataset(demo_root)
    assert dataset.kind == "demo"
    assert open_dataset(demo_root, "musdb18").kind == "musdb18"
    assert sorted(splits_of(dataset).values()) == ["test", "test", "train", "train", "train", "valid"]
    assert {name: "train" if split == "valid" else split for name, split in splits_of(dataset).items()} == {
        name: split for name, (split, _) in musdb_splits(demo_root).items()
    }
    assert [song.name for song in dataset.split("train")] == sorted(song.name for song in dataset.split("train"))


def test_accompaniment_of_a_stem_file_is_the_sum_of_its_three_instruments(demo_root: Path) -> None:
    song = open_dataset(demo_root).split("test")[0]
    streams = {}
    for number, name in enumerate(STEMS):
        with av.open(str(song.mixture[0].path)) as container:
            frames = list(container.decode(container.streams.audio[number]))
            streams[name] = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).astype(np.float64)
    found, rate = read_sources(song, ALL)
    assert rate == 44100
    np.testing.assert_array_equal(found["mixture"], streams["mixture"])
    np.testing.assert_array_equal(found["vocals"], streams["vocals"])
    band = streams["drums"] + streams["bass"] + streams["other"]
    np.testing.assert_allclose(found["accompaniment"], band, rtol=0, atol=3 * 2.0**-24)


@pytest.fixture(scope="module")
def hq_root(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demo songs, the first second of each, in the layout of MUSDB18-HQ."""
    root = tmp_path_factory.mktemp("hq")
    for split in ("train", "test"):
        path = min((demo_root / split).iterdir())
        folder = root / split / path.name.removesuffix(".stem.mp4")
        folder.mkdir(parents=True)
        for number, name in enumerate(STEMS):
            with av.open(str(path)) as container:
                frames = list(container.decode(container.streams.audio[number]))
            waveform = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
            soundfile.write(folder / f"{name}.wav", waveform[:, :44100].T, 44100, subtype="PCM_16")
    return root


def test_hq_songs_are_those_of_musdb_sample_by_sample(hq_root: Path) -> None:
    dataset = open_dataset(hq_root)
    assert dataset.kind == "musdb18-hq"
    expected = {name: (split, path.resolve()) for name, (split, path) in musdb_splits(hq_root, is_wav=True).items()}
    assert {song.name: (song.split, song.mixture[0].path) for song in dataset.songs} == expected
    for song in dataset.songs:
        audio = as_musdb_reads(song.mixture[0].path.parent, is_wav=True)
        for name, found in read_sources(song, ALL)[0].items():
            np.testing.assert_array_equal(found, audio[name])


def test_hq_song_that_lacks_a_file_is_a_named_problem_and_the_others_remain(hq_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "hq"
    shutil.copytree(hq_root, root)
    (broken,) = (root / "train").iterdir()
    (broken / "bass.wav").unlink()
    dataset = open_dataset(root, "musdb18-hq")
    assert [song.split for song in dataset.songs] == ["test"]
    assert list(dataset.problems) == [broken.name]
    assert "bass.wav" in dataset.problems[broken.name]
    assert "vocals.wav" not in dataset.problems[broken.name]


def test_the_table_is_the_musdb_packages_own(tmp_path: Path) -> None:
    setup = musdb.DB(root=str(tmp_path), subsets=[]).setup
    for part in ("stem_ids", "sources", "targets", "mixture", "validation_tracks"):
        assert musdb_table()[part] == setup[part]
