"""Songs that are in two splits under different names, and those that only share a file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.store import SpectrogramStore
from tests.helpers import one_line
from vocsep.mapping import SomeFailed
from vocsep.preprocessing.step import PreprocessConfig, preprocess

RATE = 8000


def put_song(root: Path, split: str, name: str, seed: int, *, silent: bool = False) -> Path:
    """A song of one second, and its folder."""
    folder = root / split / name
    folder.mkdir(parents=True)
    voice, band = np.random.default_rng(seed).uniform(-0.3, 0.3, (2, RATE, 2))
    voice *= not silent
    soundfile.write(folder / "vocals.wav", voice, RATE)
    soundfile.write(folder / "mixture.wav", voice + band, RATE)
    return folder


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Songs of equal lengths in all three splits, whose files so have equal sizes; two of them have no voice."""
    root = tmp_path / "songs"
    for seed, (split, name) in enumerate((("train", "One"), ("train", "Two"), ("valid", "Three"), ("test", "Four"))):
        put_song(root, split, name, seed, silent=seed in (0, 3))
    return root


def config(root: Path, *, skip_failed: bool = False) -> PreprocessConfig:
    return PreprocessConfig(dataset=root, store=root.with_name("s.zarr"), preset="notebook", skip_failed=skip_failed)


def test_songs_that_share_a_silent_voice_are_two_songs(songs: Path) -> None:
    assert preprocess(config(songs)).made == 4
    # All is known of files that were not touched.
    assert preprocess(config(songs)).unchanged == 4


@pytest.mark.parametrize(
    ("split", "name", "copy"), [("train", "Two", "test"), ("test", "Four", "valid"), ("valid", "Three", "train")]
)
@pytest.mark.parametrize("is_held", [False, True])
def test_song_under_another_name_in_another_split_is_refused_by_both_names(
    songs: Path, split: str, name: str, copy: str, is_held: bool
) -> None:
    if is_held:
        preprocess(config(songs))
    shutil.copytree(songs / split / name, songs / copy / "Quite another", symlinks=False)
    one_line(lambda: preprocess(config(songs)), songs, repr(name), "'Quite another'", split, copy)
    assert songs.with_name("s.zarr").exists() == is_held


def test_song_that_cannot_be_used_keeps_no_other_from_training_where_the_user_says_so(songs: Path) -> None:
    (songs / "train" / "Broken").mkdir()
    (songs / "train" / "Broken" / "vocals.wav").write_bytes(b"no sound")
    (songs / "train" / "Broken" / "mixture.wav").write_bytes(b"no sound")
    (songs / "train" / "Voiceless").mkdir()
    (songs / "train" / "Voiceless" / "drums.wav").write_bytes(b"no sound")
    (songs / "train" / "stray.txt").touch()
    with pytest.raises(SomeFailed) as failed:
        preprocess(config(songs))
    assert sorted(failed.value.failures) == ["Broken", "Voiceless"]
    result = preprocess(config(songs, skip_failed=True))
    assert result.unchanged == 4
    assert sorted(result.failed) == ["Broken", "Voiceless"]
    text = "\n".join(result.lines())
    for part in ("Broken", "Voiceless", "no vocals file", "train/stray.txt"):
        assert part in text
    assert len(SpectrogramStore.open(songs.with_name("s.zarr")).manifest.tracks) == 4


def test_dataset_without_any_song_that_can_be_used_is_a_failure_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "songs" / "train" / "Voiceless").mkdir(parents=True)
    (tmp_path / "songs" / "train" / "Voiceless" / "drums.wav").write_bytes(b"no sound")
    for skip_failed in (False, True):
        wanted = config(tmp_path / "songs", skip_failed=skip_failed).model_copy(update={"kind": "folder"})
        with pytest.raises(SomeFailed, match="Voiceless"):
            preprocess(wanted)
