"""Songs in folders: stems, sums, karaoke, one source alone."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile

from storage.errors import UserError
from tests.helpers import one_line
from tests.vocsep.datasets.folders import ALL, RATE, noise, only_song, put, splits_of
from vocsep.audio.reading import BLOCK_SAMPLES
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources, source_blocks


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
    (tmp_path / "train" / "Empty" / "cache").mkdir(parents=True)
    (tmp_path / "train" / "Empty" / "cache" / "index.db").touch()
    (tmp_path / "train" / "stray.wav").write_bytes(b"")
    dataset = open_dataset(tmp_path, "folder")
    assert [song.name for song in dataset.songs] == ["Good"]
    assert sorted(dataset.problems) == ["A cappella", "Voiceless"]
    # What other programs put there, whatever it is called, keeps no song from training.
    assert set(dataset.skipped) == {"train/Empty", "train/stray.wav"}
    for name, problem in dataset.problems.items():
        assert str(tmp_path / "train" / name) in problem
        assert "\n" not in problem


def test_broken_file_is_refused_by_name_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path / "train" / "Song" / "mixture.wav", noise(1))
    (tmp_path / "train" / "Song" / "vocals.wav").write_bytes(b"this is no sound")
    song = only_song(tmp_path)
    one_line(lambda: read_sources(song, ALL), song.vocals[0].path)


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
