import hashlib
import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from tests.helpers import one_line
from tests.reference import musdb
from vocsep.audio.reading import BLOCK_SAMPLES
from vocsep.datasets.layouts import musdb_table, open_dataset
from vocsep.datasets.songs import Dataset, Song, hashed_share, song_key, track_id
from vocsep.datasets.sources import read_sources, source_blocks

RATE = 8000
STEMS = ("mixture", "drums", "bass", "other", "vocals")
ALL = ("mixture", "vocals", "accompaniment")
Floats = NDArray[Any]

names_of_songs = st.lists(
    st.text("abcdeÉñ漢 -'.0123", min_size=1, max_size=12).filter(lambda name: name[0] != "."),
    unique_by=song_key,
    max_size=25,
)


def noise(seed: int, seconds: float = 0.5, channels: int = 2, rate: int = RATE) -> Floats:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (channels, round(seconds * rate))).astype(np.float32)


def put(path: Path, waveform: Floats, rate: int = RATE) -> Floats:
    """Write a wav file whose samples come back bit by bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate, subtype="FLOAT")
    return waveform


def only_song(root: Path, kind: str = "auto") -> Song:
    dataset = open_dataset(root, kind)
    assert dataset.problems == {}
    (song,) = dataset.songs
    return song


def splits_of(dataset: Dataset) -> dict[str, str]:
    return {song.name: song.split for song in dataset.songs}


# --- own songs in folders -------------------------------------------------------------------------------


def test_folder_with_vocals_and_accompaniment_has_their_sum_as_its_mixture(tmp_path: Path) -> None:
    vocals = put(tmp_path / "train" / "Song" / "vocals.wav", noise(1))
    band = put(tmp_path / "train" / "Song" / "accompaniment.wav", noise(2))
    song = only_song(tmp_path)
    assert (song.name, song.split) == ("Song", "train")
    sources, rate = read_sources(song, ALL)
    assert rate == RATE
    assert list(sources) == list(ALL)
    np.testing.assert_array_equal(sources["vocals"], vocals)
    np.testing.assert_array_equal(sources["accompaniment"], band)
    np.testing.assert_array_equal(sources["mixture"], vocals + band)
    assert all(source.dtype == np.float32 for source in sources.values())


def test_folder_with_other_stems_has_all_of_them_as_its_accompaniment(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "Song"
    vocals = put(folder / "Vocals.WAV", noise(1))
    stems = [put(folder / f"{name}.wav", noise(seed)) for seed, name in enumerate(("guitar", "drums", "x y"), 2)]
    (folder / "notes.txt").write_text("no stem")
    put(folder / ".hidden.wav", noise(9))
    song = only_song(tmp_path, "folder")
    assert song.split == "test"
    sources, _ = read_sources(song, ALL)
    band = np.sum(stems, axis=0, dtype=np.float64)
    # Three additions of numbers below 1 in float32.
    np.testing.assert_allclose(sources["accompaniment"], band, rtol=0, atol=3 * 2.0**-24)
    np.testing.assert_allclose(sources["mixture"], band + vocals, rtol=0, atol=4 * 2.0**-24)


def test_mixture_file_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    vocals, band = put(folder / "vocals.wav", noise(1)), put(folder / "accompaniment.wav", noise(2))
    mastered = put(folder / "mixture.wav", vocals + band + 0.1 * noise(3))
    sources, _ = read_sources(only_song(tmp_path), ALL)
    np.testing.assert_array_equal(sources["mixture"], mastered)
    np.testing.assert_array_equal(sources["accompaniment"], band)
    np.testing.assert_array_equal(sources["vocals"], vocals)


@pytest.mark.parametrize("names", [ALL, ("accompaniment",), ("accompaniment", "vocals")])
def test_folder_with_only_vocals_and_mixture_has_their_difference_as_its_accompaniment(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder = tmp_path / "train" / "Song"
    vocals = put(folder / "vocals.wav", noise(1))
    mixture = put(folder / "mixture.wav", vocals + noise(3))
    sources, _ = read_sources(only_song(tmp_path), names)
    assert tuple(sources) == names
    np.testing.assert_array_equal(sources["accompaniment"], mixture - vocals)


def test_files_of_different_formats_go_together(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    vocals = np.round(noise(1) * 2**15) / np.float32(2**15)
    band = put(folder / "accompaniment.wav", noise(2))
    soundfile.write(folder / "vocals.flac", vocals.T, RATE, subtype="PCM_16")
    sources, _ = read_sources(only_song(tmp_path), ("mixture",))
    np.testing.assert_array_equal(sources["mixture"], vocals + band)


def test_mono_stem_of_a_stereo_song_stands_in_both_channels(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    vocals, band = put(folder / "vocals.wav", noise(1, channels=1)), put(folder / "accompaniment.wav", noise(2))
    sources, _ = read_sources(only_song(tmp_path), ALL)
    np.testing.assert_array_equal(sources["vocals"], np.concatenate([vocals, vocals]))
    np.testing.assert_array_equal(sources["mixture"], band + vocals)


def test_mono_song_stays_mono(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    for seed, name in enumerate(("vocals", "drums")):
        put(folder / f"{name}.wav", noise(seed, channels=1))
    sources, _ = read_sources(only_song(tmp_path), ALL)
    assert {source.shape for source in sources.values()} == {(1, RATE // 2)}


def test_stem_that_ends_a_twentieth_of_a_second_early_is_padded_with_zeros(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    vocals, band = put(folder / "vocals.wav", noise(1, 0.45)), put(folder / "accompaniment.wav", noise(2, 0.5))
    sources, _ = read_sources(only_song(tmp_path), ALL)
    padded = np.pad(vocals, ((0, 0), (0, round(0.05 * RATE))))
    np.testing.assert_array_equal(sources["vocals"], padded)
    np.testing.assert_array_equal(sources["mixture"], padded + band)


def test_files_of_a_long_song_are_read_side_by_side_block_by_block(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    seconds = 2.4 * BLOCK_SAMPLES / RATE
    vocals, band = put(folder / "vocals.wav", noise(1, seconds)), noise(2, seconds + 0.05, channels=1)
    band = np.round(band * 2**15) / np.float32(2**15)  # a frame of flac is no frame of wav
    soundfile.write(folder / "accompaniment.flac", band.T, RATE, subtype="PCM_16")
    blocks = list(source_blocks(only_song(tmp_path), ALL))
    assert {rate for _, rate in blocks} == {RATE}
    sizes = [waveforms["mixture"].shape[1] for waveforms, _ in blocks]
    assert sizes[:-1] == [BLOCK_SAMPLES] * 2
    assert sum(sizes) == band.shape[1]
    padded = np.pad(vocals, ((0, 0), (0, round(0.05 * RATE))))
    both = np.concatenate([band, band])
    for name, expected in (("mixture", padded + both), ("vocals", padded), ("accompaniment", both)):
        np.testing.assert_array_equal(np.concatenate([parts[name] for parts, _ in blocks], axis=1), expected)
    whole, _ = read_sources(only_song(tmp_path), ALL)
    np.testing.assert_array_equal(whole["mixture"], padded + both)


def test_song_whose_file_is_damaged_at_its_end_is_refused_before_its_last_block(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Song"
    wrong = noise(1, 2.5 * BLOCK_SAMPLES / RATE)
    wrong[0, -1] = np.nan
    put(folder / "vocals.wav", wrong)
    put(folder / "mixture.wav", noise(2, 2.5 * BLOCK_SAMPLES / RATE))
    blocks = source_blocks(only_song(tmp_path), ALL)
    assert len([next(blocks), next(blocks)]) == 2
    one_line(lambda: next(blocks), folder / "vocals.wav", "NaN")


def test_stem_that_ends_a_second_early_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Long song"
    put(folder / "vocals.wav", noise(1, 0.5))
    put(folder / "accompaniment.wav", noise(2, 1.5))
    song = only_song(tmp_path)
    one_line(lambda: read_sources(song, ("mixture",)), "Long song", "0.50 s", "1.50 s")


def test_stems_of_different_sample_rates_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Odd song"
    put(folder / "vocals.wav", noise(1), 8000)
    put(folder / "accompaniment.wav", noise(2), 11025)
    song = only_song(tmp_path)
    one_line(lambda: read_sources(song, ("mixture",)), "Odd song", "8000", "11025")


def test_stems_of_two_and_three_channels_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "Odd song"
    put(folder / "vocals.wav", noise(1, channels=2))
    put(folder / "accompaniment.wav", noise(2, channels=3))
    song = only_song(tmp_path)
    one_line(lambda: read_sources(song, ("mixture",)), "Odd song", "channel")


def test_folder_without_vocals_or_without_anything_else_is_a_named_problem_and_the_others_remain(
    tmp_path: Path,
) -> None:
    put(tmp_path / "train" / "Good" / "vocals.wav", noise(1))
    put(tmp_path / "train" / "Good" / "mixture.wav", noise(2))
    put(tmp_path / "train" / "Voiceless" / "drums.wav", noise(3))
    put(tmp_path / "train" / "A cappella" / "vocals.wav", noise(4))
    (tmp_path / "train" / "Empty").mkdir()
    (tmp_path / "train" / "stray.wav").write_bytes(b"")
    dataset = open_dataset(tmp_path, "folder")
    assert [song.name for song in dataset.songs] == ["Good"]
    assert sorted(dataset.problems) == ["A cappella", "Empty", "Voiceless"]
    for name, problem in dataset.problems.items():
        assert str(tmp_path / "train" / name) in problem
        assert "\n" not in problem


def test_broken_file_is_refused_by_name_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path / "train" / "Song" / "mixture.wav", noise(1))
    (tmp_path / "train" / "Song" / "vocals.wav").write_bytes(b"this is no sound")
    song = only_song(tmp_path)
    one_line(lambda: read_sources(song, ALL), song.vocals[0].path)


# --- karaoke --------------------------------------------------------------------------------------------


def test_karaoke_file_holds_the_band_on_the_left_and_the_voice_on_the_right(tmp_path: Path) -> None:
    both = put(tmp_path / "Song.wav", noise(1))
    song = only_song(tmp_path, "karaoke")
    assert (song.name, song.split) == ("Song", "train")
    sources, _ = read_sources(song, ALL)
    np.testing.assert_array_equal(sources["accompaniment"], both[:1])
    np.testing.assert_array_equal(sources["vocals"], both[1:])
    np.testing.assert_array_equal(sources["mixture"], both[:1] + both[1:])


def test_karaoke_songs_lie_in_split_folders_or_beside_each_other(tmp_path: Path) -> None:
    put(tmp_path / "flat.wav", noise(1))
    put(tmp_path / "train" / "one.wav", noise(2))
    put(tmp_path / "valid" / "two.wav", noise(3))
    put(tmp_path / "test" / "three.wav", noise(4))
    dataset = open_dataset(tmp_path, "karaoke")
    assert splits_of(dataset) == {"flat": "train", "one": "train", "two": "valid", "three": "test"}


def test_mono_file_is_no_karaoke(tmp_path: Path) -> None:
    put(tmp_path / "Song.wav", noise(1, channels=1))
    song = only_song(tmp_path, "karaoke")
    one_line(lambda: read_sources(song, ("vocals",)), tmp_path / "Song.wav", "1 channels")


@pytest.mark.parametrize("source", ["vocals", "accompaniment"])
def test_files_of_one_source_are_training_songs_wherever_they_lie(
    tmp_path: Path, source: Literal["vocals", "accompaniment"]
) -> None:
    waveform = put(tmp_path / "An Album" / "First.wav", noise(1))
    put(tmp_path / "Second.wav", noise(2))
    put(tmp_path / ".trash" / "Third.wav", noise(3))
    put(tmp_path / "__MACOSX" / "An Album" / "Third.wav", noise(3))
    (tmp_path / "read me.txt").touch()
    put(tmp_path.with_name(f"{tmp_path.name} elsewhere") / "Fourth.w64", noise(4))
    (tmp_path / "Link").symlink_to(tmp_path.with_name(f"{tmp_path.name} elsewhere"), target_is_directory=True)
    dataset = open_dataset(tmp_path, source)
    assert splits_of(dataset) == {"An Album - First": "train", "Second": "train", "Link - Fourth": "train"}
    assert dataset.skipped == ("read me.txt",)
    assert all(song.only == source for song in dataset.songs)
    song = next(song for song in dataset.songs if song.name == "An Album - First")
    assert np.array_equal(read_sources(song, ["mixture"])[0]["mixture"], waveform)


@pytest.mark.parametrize("other", ["Song.wav", "train/Song.flac"])
def test_two_files_of_one_name_are_refused_or_have_ids_of_their_own(tmp_path: Path, other: str) -> None:
    for path in (tmp_path / "train" / "Song.wav", tmp_path / other):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    try:
        dataset = open_dataset(tmp_path, "karaoke")
    except UserError:
        return
    assert len(dataset.songs) + len(dataset.problems) == 2
    assert len({song.id for song in dataset.songs}) == len(dataset.songs)


# --- MUSDB18, its demo and its wav form -----------------------------------------------------------------


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


def test_unfinished_and_foreign_files_are_no_songs(demo_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "songs"
    shutil.copytree(demo_root, root)
    for name in (".song.stem.mp4", "song.mp4", "song.stem.mp4.part", "song.wav"):
        (root / "train" / name).write_bytes(b"")
    assert splits_of(open_dataset(root)) == splits_of(open_dataset(demo_root))


# --- splits ---------------------------------------------------------------------------------------------


@given(names=st.sets(st.text(min_size=1), max_size=60), share=st.floats(0.01, 0.99))
def test_hashed_share_is_exact_in_number_and_depends_on_the_names_alone(names: set[str], share: float) -> None:
    chosen = hashed_share(names, share)
    assert len(chosen) == (max(1, round(share * len(names))) if len(names) > 1 else 0)
    assert chosen <= names
    assert hashed_share(sorted(names, reverse=True), share) == chosen
    assert hashed_share(iter(sorted(names)), share) == chosen


@given(names=st.sets(st.text(min_size=1), min_size=2, max_size=30), share=st.floats(0.1, 0.9))
def test_hashed_share_takes_the_names_of_smallest_sha_256(names: set[str], share: float) -> None:
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = hashed_share(names, share)
    assert chosen == set(by_hash[: len(chosen)])


@settings(max_examples=30, deadline=None)
@given(train=names_of_songs, test=names_of_songs)
def test_no_song_is_in_two_splits_and_none_is_lost(train: list[str], test: list[str]) -> None:
    taken = {song_key(name) for name in train}
    test = [name for name in test if song_key(name) not in taken]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split, names in (("train", train), ("test", test)):
            (root / split).mkdir()
            for name in names:
                (root / split / f"{name}.wav").touch()
        if not train and not test:
            one_line(lambda: open_dataset(root, "karaoke"), "no songs")
            return
        dataset = open_dataset(root, "karaoke")
        again = open_dataset(root, "karaoke")
    assert again == dataset
    splits = splits_of(dataset)
    assert len(dataset.songs) == len(splits) == len(train) + len(test)
    assert {name for name, split in splits.items() if split == "test"} == set(test)
    valid = {name for name, split in splits.items() if split == "valid"}
    assert valid <= set(train)
    assert len(valid) == (max(1, round(0.15 * len(train))) if len(train) > 1 else 0)
    assert len({song.id for song in dataset.songs}) == len(dataset.songs)


def test_valid_folder_is_the_validation_split_and_nothing_is_taken_from_the_training_songs(tmp_path: Path) -> None:
    for split, count in (("train", 8), ("valid", 2), ("test", 1)):
        for number in range(count):
            put(tmp_path / split / f"{split} {number}" / "vocals.wav", noise(1))
            put(tmp_path / split / f"{split} {number}" / "mixture.wav", noise(2))
    splits = splits_of(open_dataset(tmp_path))
    assert splits == {name: name.split()[0] for name in splits}
    assert len(splits) == 11


def test_song_in_train_and_test_is_refused_by_name(tmp_path: Path) -> None:
    for split in ("train", "test"):
        put(tmp_path / split / "Same song" / "vocals.wav", noise(1))
        put(tmp_path / split / "Same song" / "mixture.wav", noise(2))
    one_line(lambda: open_dataset(tmp_path), tmp_path, "Same song", "train", "test")


@pytest.mark.parametrize(
    "other", ["same song", "Same song ", "Same  Song", "SAME SONG", unicodedata.normalize("NFD", "S\u00e4me song")]
)
def test_song_in_train_and_test_is_refused_however_its_name_is_spelt(tmp_path: Path, other: str) -> None:
    name = "S\u00e4me song" if unicodedata.normalize("NFC", other) != other else "Same song"
    for split, folder in (("train", name), ("test", other)):
        put(tmp_path / split / folder / "vocals.wav", noise(1))
        put(tmp_path / split / folder / "drums.wav", noise(2))
    one_line(lambda: open_dataset(tmp_path), tmp_path, name, "train", "test")


@pytest.mark.parametrize("kind", ["folder", "karaoke", "musdb18"])
def test_folders_and_files_of_systems_are_no_songs_in_whatever_split_folder_they_lie(tmp_path: Path, kind: str) -> None:
    system = (
        "__MACOSX",
        ".ipynb_checkpoints",
        "@eaDir",
        "$RECYCLE.BIN",
        ".Trash-0",
        "lost+found",
        ".hidden",
        "@__thumb",
    )
    for split in ("Train", "TEST"):
        for name in system:
            put(tmp_path / split / name / "drums.wav", noise(1))
            (tmp_path / split / name / "._Song.stem.mp4").touch()
        for name in (".DS_Store", "Thumbs.db", "._Song.wav", "._Song.stem.mp4"):
            (tmp_path / split / name).touch()
        song = tmp_path / split / f"{split} song"
        if kind == "folder":
            put(song / "vocals.wav", noise(2))
            put(song / "drums.wav", noise(3))
        else:
            song.with_name(f"{song.name}.{'wav' if kind == 'karaoke' else 'stem.mp4'}").touch()
    dataset = open_dataset(tmp_path, "karaoke" if kind == "karaoke" else "auto")
    assert dataset.kind == kind
    assert splits_of(dataset) == {"Train song": "train", "TEST song": "test"}
    assert dataset.problems == {}
    assert dataset.skipped == ()


def test_what_is_taken_for_no_song_is_said(tmp_path: Path) -> None:
    for number, name in enumerate(("vocals.caf", "drums.AU", "notes.txt")):
        path = tmp_path / "songs" / "train" / "Song" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if name == "notes.txt" else soundfile.write(path, noise(number).T, RATE, subtype="PCM_16")
    for other in ("train/stray.wav", "train/list.txt", "Validation/Song/vocals.wav"):
        (tmp_path / "songs" / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "songs" / other).touch()
    dataset = open_dataset(tmp_path / "songs")
    assert splits_of(dataset) == {"Song": "train"}
    assert sorted(dataset.skipped) == ["Validation", "train/list.txt", "train/stray.wav"]
    assert sorted(read_sources(dataset.songs[0], ALL)[0]) == sorted(ALL)


# --- what is no dataset ---------------------------------------------------------------------------------


def test_missing_folder_file_empty_folder_and_foreign_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "train" / "x").mkdir(parents=True)
    (tmp_path / "foreign" / "readme.txt").write_text("no songs")
    (tmp_path / "songs without split").mkdir()
    put(tmp_path / "songs without split" / "song.wav", noise(1))
    for name in ("missing", "file", "empty", "foreign", "songs without split"):
        one_line(lambda name=name: open_dataset(tmp_path / name), tmp_path / name)  # type: ignore[misc]
    for kind in ("musdb18", "karaoke"):
        one_line(
            lambda kind=kind: open_dataset(tmp_path / "foreign", kind),  # type: ignore[misc]
            tmp_path / "foreign",
        )


def test_named_kind_says_of_every_folder_why_it_is_no_song(tmp_path: Path) -> None:
    (tmp_path / "train" / "x").mkdir(parents=True)
    for kind in ("musdb18-hq", "folder"):
        dataset = open_dataset(tmp_path, kind)
        assert dataset.songs == ()
        assert "vocals" in dataset.problems["x"]


def test_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    one_line(lambda: open_dataset(tmp_path, "mp3"), "mp3", "musdb18", "musdb18-hq", "folder", "karaoke", "demo")


def test_name_that_is_not_utf_8_is_a_song_or_a_named_problem(tmp_path: Path) -> None:
    put(tmp_path / "train" / "Good" / "vocals.wav", noise(1))
    put(tmp_path / "train" / "Good" / "mixture.wav", noise(2))
    odd = os.fsdecode(b"Caf\xe9")
    try:
        shutil.copytree(tmp_path / "train" / "Good", tmp_path / "train" / odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    dataset = open_dataset(tmp_path)
    assert "Good" in splits_of(dataset)
    assert len(dataset.songs) + len(dataset.problems) == 2


@pytest.mark.parametrize("odd", ["two\nlines", "a\ttab", "bell\x07", "\u2028separator"])
def test_name_that_is_not_one_line_is_a_problem_of_one_line_and_the_others_remain(tmp_path: Path, odd: str) -> None:
    for name in ("Good\u00a0song \u3000", odd):
        put(tmp_path / "train" / name / "vocals.wav", noise(1))
        put(tmp_path / "train" / name / "mixture.wav", noise(2))
    put(tmp_path / "train" / f"voiceless {odd}" / "mixture.wav", noise(2))
    dataset = open_dataset(tmp_path)
    assert [song.name for song in dataset.songs] == ["Good\u00a0song \u3000"]
    assert len(dataset.problems) == 2
    for text in (*dataset.problems, *dataset.problems.values()):
        assert len(text.splitlines()) == 1
        assert "\t" not in text
        assert "\x07" not in text


# --- track ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("A Song", "a-song"),
        ("Caf\u00e9 / Zo\u00eb \u2013 O\u00f9?", "cafe-zoe-ou"),
        ("../../etc/passwd", "etc-passwd"),
        ("\u6f22\u5b57", "song"),
        ("", "song"),
        ("...", "song"),
        ("x" * 300, "x" * 40),
        ("x" * 39 + " y", "x" * 39),
        ("line\nbreak\0", "line-break"),
    ],
)
def test_id_is_a_slug_of_at_most_40_characters_and_a_hash(name: str, slug: str) -> None:
    found = track_id("folder", "train", name)
    expected = hashlib.sha256(f"folder/train/{name}".encode()).hexdigest()[:10]
    assert found == f"{slug}-{expected}"


@given(name=st.text(max_size=300))
def test_any_name_makes_a_safe_file_name(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", track_id("folder", "train", name))
    assert len(track_id("folder", "train", name)) <= 51


def test_equal_slugs_splits_and_kinds_have_distinct_ids() -> None:
    names = ["A Song", "A  Song", "a song", "A-Song", "\u00c0 Song", "A Song!", "x" * 300, "x" * 301]
    ids = {
        track_id(kind, split, name)
        for kind in ("musdb18", "folder")
        for split in ("train", "valid", "test")
        for name in names
    }
    assert len(ids) == 2 * 3 * len(names)


def test_id_of_a_song_never_changes() -> None:
    assert track_id("musdb18", "train", "Caf\u00e9 / Zo\u00eb \u2013 O\u00f9?") == "cafe-zoe-ou-19f97f0f43"


def test_the_table_is_the_musdb_packages_own(tmp_path: Path) -> None:
    setup = musdb.DB(root=str(tmp_path), subsets=[]).setup
    for part in ("stem_ids", "sources", "targets", "mixture", "validation_tracks"):
        assert musdb_table()[part] == setup[part]
