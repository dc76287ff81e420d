"""What is a song, in which split it is, and what it is called."""

import hashlib
import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path

import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import one_line
from tests.vocsep.datasets.folders import ALL, RATE, names_of_songs, noise, put, splits_of
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import hashed_share, song_key, track_id
from vocsep.datasets.sources import read_sources


def test_unfinished_and_foreign_files_are_no_songs(demo_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "songs"
    shutil.copytree(demo_root, root)
    for name in (".song.stem.mp4", "song.mp4", "song.stem.mp4.part", "song.wav"):
        (root / "train" / name).write_bytes(b"")
    assert splits_of(open_dataset(root)) == splits_of(open_dataset(demo_root))


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
        "LOST.DIR",
        "found.012",
        "@SynoEAStream",
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
    put(tmp_path / "train" / "x" / "drums.wav", noise(1))
    (tmp_path / "train" / "CVS").mkdir()
    for kind in ("musdb18-hq", "folder"):
        dataset = open_dataset(tmp_path, kind)
        assert dataset.songs == ()
        assert "vocals" in dataset.problems["x"]
        assert dataset.skipped == ("train/CVS",)


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
