import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from storage.files import file_digest
from storage.lock import store_lock
from storage.store import SpectrogramStore
from storage.track_writer import TEMPORARY_FOLDER
from tests.disk import fill, small_disk
from tests.helpers import flip, one_line, tree
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset
from vocsep.demo.dataset import synthesize_song
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.plan import Plan, check_store, plan
from vocsep.preprocessing.room import estimated_bytes
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import open_store, updating
from vocsep.spectrograms.config import SpectrogramConfig, load_spectrogram_config

FINE = StoreConfig(spectrogram=load_spectrogram_config("fine"))
NOTEBOOK = StoreConfig(spectrogram=load_spectrogram_config("notebook"), dtype="float32")
Floats = NDArray[Any]
CopyStore = Callable[[], SpectrogramStore]


@pytest.fixture
def songs(demo_root: Path, tmp_path: Path) -> Path:
    """A copy of the demo songs, to change."""
    shutil.copytree(demo_root, tmp_path / "songs")
    return tmp_path / "songs"


def decoded(path: Path, stream: int) -> Floats:
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[stream]))
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def expected_spectrograms(path: Path, config: SpectrogramConfig) -> dict[str, Floats]:
    """Magnitudes of mixture, vocals and their difference in the time domain, in float64, `(channels, frames, bins)`."""
    mixture, vocals = decoded(path, 0).astype(np.float64), decoded(path, 4).astype(np.float64)
    found = {}
    for name, signal in (("mixture", mixture), ("vocals", vocals), ("accompaniment", mixture - vocals)):
        if config.channels == 1:
            signal = signal.mean(axis=0, keepdims=True)
        signal = soxr.resample(signal.T, 44100, config.sample_rate, quality="HQ").T
        spectrum = librosa.stft(
            signal, n_fft=config.n_fft, hop_length=config.hop_length, center=True, pad_mode="constant"
        )
        found[name] = np.abs(spectrum[:, 1:]).transpose(0, 2, 1)
    return found


def run(
    path: Path, dataset: Dataset, config: StoreConfig = FINE, *, prune: bool = False
) -> tuple[SpectrogramStore, Plan]:
    """One preprocess run, as the flow does it."""
    with updating(path, dataset, config, prune=prune) as (update, todo):
        for song in todo.pending:
            update.add(preprocess_song(song, path, config))
    return update, todo


def saved(path: Path) -> list[str]:
    """Names of the tracks that the manifest on the disk names."""
    return sorted(track.name for track in SpectrogramStore.open(path).manifest.tracks.values())


def names(todo: Plan) -> list[str]:
    return sorted(song.name for song in todo.pending)


def paths_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# --- values ---------------------------------------------------------------------------------------------


def test_stored_values_are_the_magnitudes_of_an_independent_computation_rounded_to_float16(
    demo_root: Path, demo_store: SpectrogramStore
) -> None:
    for song in open_dataset(demo_root).songs:
        track = demo_store.manifest.tracks[song.id]
        for name, expected in expected_spectrograms(song.mixture[0].path, FINE.spectrogram).items():
            stored = demo_store.array(track, name)
            assert stored.dtype == np.float16
            assert stored.shape == expected.shape
            # Half a step of float16 (11 bits), and float32 arithmetic on sums of up to 512: 512 * 2^-24 * 4.
            np.testing.assert_allclose(stored.astype(np.float64), expected, rtol=1.001 * 2.0**-11, atol=512 * 2.0**-22)


def test_mono_preset_in_float32_stores_the_magnitudes_of_the_mean_of_the_channels(
    demo_root: Path, tmp_path: Path
) -> None:
    song = open_dataset(demo_root).split("test")[0]
    open_store(tmp_path / "s.zarr", open_dataset(demo_root), NOTEBOOK)
    track = preprocess_song(song, tmp_path / "s.zarr", NOTEBOOK)
    store = SpectrogramStore.open(tmp_path / "s.zarr")
    for name, expected in expected_spectrograms(song.mixture[0].path, NOTEBOOK.spectrogram).items():
        stored: Floats = store.array(track, name)
        assert stored.dtype == np.float32
        assert stored.shape == expected.shape == (1, track.frames, 512)
        np.testing.assert_allclose(stored, expected, rtol=0, atol=512 * 2.0**-22)


def test_record_says_what_the_track_was_made_from(demo_root: Path, demo_store: SpectrogramStore) -> None:
    dataset = open_dataset(demo_root)
    assert sorted(song.id for song in dataset.songs) == sorted(demo_store.manifest.tracks)
    for song in dataset.songs:
        track = demo_store.manifest.tracks[song.id]
        assert (track.name, track.split, track.channels) == (song.name, song.split, 2)
        samples = decoded(song.mixture[0].path, 0).shape[1]
        assert track.seconds == samples / 44100
        assert track.frames == 1 + round(samples / 4) // 256
        (source,) = track.sources
        path = song.mixture[0].path
        assert (source.path, source.bytes, source.modified_ns, source.sha256) == (
            str(path),
            path.stat().st_size,
            path.stat().st_mtime_ns,
            file_digest(path),
        )


def test_validation_songs_have_waveforms_at_the_feature_rate_and_no_others_have(
    demo_root: Path, demo_store: SpectrogramStore
) -> None:
    paths = {song.id: song.mixture[0].path for song in open_dataset(demo_root).songs}
    (valid,) = demo_store.tracks("valid")
    for track in demo_store.manifest.tracks.values():
        waveforms = {name for name in track.arrays if name.endswith("_waveform")}
        assert waveforms == ({"mixture_waveform", "vocals_waveform"} if track == valid else set())
    for name, stream in (("mixture_waveform", 0), ("vocals_waveform", 4)):
        expected = soxr.resample(decoded(paths[valid.id], stream).astype(np.float64).T, 44100, 11025).T
        stored: Floats = demo_store.array(valid, name)
        assert stored.dtype == np.float32
        np.testing.assert_allclose(stored, expected, rtol=0, atol=2.0**-20)


def test_song_whose_sources_are_several_files_records_each_of_them_that_was_read(tmp_path: Path) -> None:
    folder = tmp_path / "songs" / "train" / "Song"
    folder.mkdir(parents=True)
    for name, signal in synthesize_song(0, 0, 1.0, 11025).items():
        soundfile.write(folder / f"{name}.flac", signal.T, 11025)
    dataset = open_dataset(tmp_path / "songs")
    store, _ = run(tmp_path / "s.zarr", dataset)
    (track,) = store.manifest.tracks.values()
    assert [Path(source.path).name for source in track.sources] == ["mixture.flac", "vocals.flac"]


# --- what there is to do --------------------------------------------------------------------------------


def test_second_plan_has_nothing_to_do(demo_root: Path, copy_of_demo_store: CopyStore) -> None:
    dataset = open_dataset(demo_root)
    store = open_store(copy_of_demo_store().path, dataset, FINE)
    before = store.manifest.model_dump()
    todo = plan(store, dataset)
    assert todo == Plan(pending=(), finished=6, gone=())
    assert store.manifest.model_dump() == before


def test_file_that_was_touched_or_copied_but_is_equal_is_not_made_again(
    songs: Path, copy_of_demo_store: CopyStore
) -> None:
    for path in songs.rglob("*.stem.mp4"):
        os.utime(path, ns=(1, 1))
    dataset = open_dataset(songs)
    store = open_store(copy_of_demo_store().path, dataset, FINE)
    assert plan(store, dataset).pending == ()
    assert store.manifest.dataset["root"] == str(songs.resolve())


def test_changed_file_is_made_again_and_only_it(songs: Path, copy_of_demo_store: CopyStore) -> None:
    dataset = open_dataset(songs)
    first, second = dataset.split("train")[:2]
    shutil.copy(second.mixture[0].path, first.mixture[0].path)
    path = copy_of_demo_store().path
    store, todo = run(path, dataset)
    assert names(todo) == [first.name]
    assert todo.finished == 5
    changed, model = store.manifest.tracks[first.id], store.manifest.tracks[second.id]
    for name in ("mixture", "vocals", "accompaniment"):
        np.testing.assert_array_equal(store.array(changed, name), store.array(model, name))
    assert run(path, dataset)[1].pending == ()
    assert SpectrogramStore.open(path).damaged_shards() == []


def test_file_that_changed_in_one_byte_is_made_again(songs: Path, copy_of_demo_store: CopyStore) -> None:
    path = copy_of_demo_store().path
    dataset = open_dataset(songs)
    song = dataset.split("test")[0]
    store, _ = run(path, dataset)
    flip(song.mixture[0].path, -1)
    assert names(plan(store, dataset)) == [song.name]


def test_song_without_its_file_is_pending(songs: Path, copy_of_demo_store: CopyStore) -> None:
    dataset = open_dataset(songs)
    song = dataset.split("train")[0]
    song.mixture[0].path.unlink()
    store = open_store(copy_of_demo_store().path, dataset, FINE)
    assert names(plan(store, dataset)) == [song.name]
    one_line(lambda: preprocess_song(song, store.path, FINE), song.mixture[0].path, "no such file")


def test_track_of_a_song_that_the_dataset_lost_is_kept_and_named(songs: Path, copy_of_demo_store: CopyStore) -> None:
    song = open_dataset(songs).split("test")[0]
    song.mixture[0].path.unlink()
    store, todo = run(copy_of_demo_store().path, open_dataset(songs))
    assert todo == Plan(pending=(), finished=5, gone=(song.name,))
    assert song.id in store.manifest.tracks


def test_pruning_drops_tracks_of_lost_songs_and_their_files_and_nothing_else(
    songs: Path, copy_of_demo_store: CopyStore
) -> None:
    path = copy_of_demo_store().path
    song = open_dataset(songs).split("test")[0]
    run(path, open_dataset(songs))
    before = tree(path)
    song.mixture[0].path.unlink()
    _, todo = run(path, open_dataset(songs), prune=True)
    assert todo.gone == (song.name,)
    after = tree(path)
    assert song.name not in saved(path)
    assert before.keys() - after.keys() == {name for name in before if name.startswith(f"test/{song.id}/")}
    assert {name for name in after if after[name] != before[name]} == {"manifest.json"}
    assert run(path, open_dataset(songs), prune=True)[1].gone == ()


def test_song_that_cannot_be_used_just_now_is_not_gone(real_songs: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    run(path, open_dataset(real_songs))
    (real_songs / "test" / "Song 1" / "vocals.wav").unlink()
    dataset = open_dataset(real_songs)
    assert list(dataset.problems) == ["Song 1"]
    assert run(path, dataset, prune=True)[1] == Plan(pending=(), finished=1, gone=())
    assert saved(path) == ["Song 0", "Song 1"]


def test_changed_song_is_in_no_manifest_while_it_is_made_again(songs: Path, copy_of_demo_store: CopyStore) -> None:
    """Its shards are replaced before the manifest is: between the two, an old record would be of other bytes."""
    path = copy_of_demo_store().path
    first, second = open_dataset(songs).split("train")[:2]
    shutil.copy(second.mixture[0].path, first.mixture[0].path)
    before = saved(path)
    with updating(path, open_dataset(songs), FINE) as (update, todo):
        assert names(todo) == [first.name]
        assert saved(path) == [name for name in before if name != first.name]
        update.add(preprocess_song(first, path, FINE))
    assert saved(path) == before


def test_changed_song_that_cannot_be_made_again_keeps_its_old_track(songs: Path, copy_of_demo_store: CopyStore) -> None:
    store = copy_of_demo_store()
    song = open_dataset(songs).split("train")[0]
    song.mixture[0].path.write_bytes(b"no sound")
    with updating(store.path, open_dataset(songs), FINE) as (_, todo):
        one_line(lambda: preprocess_song(todo.pending[0], store.path, FINE), song.mixture[0].path)
    again = SpectrogramStore.open(store.path)
    assert again.manifest.tracks == store.manifest.tracks
    assert again.damaged_shards() == []
    assert names(plan(again, open_dataset(songs))) == [song.name]


def test_songs_that_were_made_before_an_error_are_saved(demo_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(demo_root)
    with contextlib.suppress(ZeroDivisionError), updating(tmp_path / "s.zarr", dataset, FINE) as (update, todo):
        update.add(preprocess_song(todo.pending[0], update.path, FINE))
        raise ZeroDivisionError
    assert saved(tmp_path / "s.zarr") == [todo.pending[0].name]
    with store_lock(tmp_path / "s.zarr"):
        pass


def test_second_run_is_refused_while_the_first_one_is_in_work_and_readers_are_not(
    demo_root: Path, copy_of_demo_store: CopyStore
) -> None:
    path, dataset = copy_of_demo_store().path, open_dataset(demo_root)
    with updating(path, dataset, FINE):
        one_line(lambda: run(path, dataset), path, f"process {os.getpid()} ")
        assert len(saved(path)) == 6
    run(path, dataset)


@pytest.mark.parametrize("preset", [FINE, NOTEBOOK], ids=["fine", "notebook"])
def test_estimate_of_the_room_is_that_of_the_store_or_a_little_more(
    demo_root: Path, tmp_path: Path, preset: StoreConfig
) -> None:
    dataset = open_dataset(demo_root)
    run(tmp_path / "s.zarr", dataset, preset)
    command = ["du", "--summarize", "--block-size=1", str(tmp_path / "s.zarr")]
    used = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[0])
    assert used <= estimated_bytes(dataset.songs, preset) <= 1.05 * used + 100_000 * len(dataset.songs)


def test_estimate_counts_a_mono_song_once_and_songs_that_cannot_be_read_as_nothing(
    real_songs: Path, tmp_path: Path
) -> None:
    (stereo, broken) = open_dataset(real_songs).songs
    for name in ("mixture", "vocals"):
        sound, rate = soundfile.read(real_songs / "train" / "Song 0" / f"{name}.wav")
        (tmp_path / "mono" / "train" / "Song").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "mono" / "train" / "Song" / f"{name}.wav", sound[:, 0], rate)
        (real_songs / "test" / "Song 1" / f"{name}.wav").write_bytes(b"")
    (mono,) = open_dataset(tmp_path / "mono").songs
    assert estimated_bytes([broken], FINE) == 0
    small_files = 100_000
    two, one = (estimated_bytes([song], FINE) - small_files for song in (stereo, mono))
    assert two == pytest.approx(2 * one, rel=0.01)


def test_run_for_which_there_is_no_room_is_refused_before_it_begins_saying_what_is_needed_and_free(
    demo_root: Path, demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    dataset = open_dataset(demo_root)
    whole = sum(track.bytes for track in demo_store.manifest.tracks.values())
    with small_disk(tmp_path / "disk", round(0.9 * whole)) as disk:
        megabytes = f"{estimated_bytes(dataset.songs, FINE) / 1e6:,.0f} MB"
        one_line(lambda: run(disk / "s.zarr", dataset), "6 songs need", megabytes, "MB are free")
        assert saved(disk / "s.zarr") == []
        # Half of the songs have room, and what is there is not asked for again.
        half = replace(dataset, songs=dataset.songs[:3])
        run(disk / "s.zarr", half)
        assert run(disk / "s.zarr", half)[1].finished == 3
        one_line(lambda: run(disk / "s.zarr", dataset), "3 songs need")
        assert len(saved(disk / "s.zarr")) == 3


def test_disk_too_full_to_create_a_store_or_a_lock_gives_one_line(demo_root: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        fill(disk / "filler")
        one_line(lambda: run(disk / "s.zarr", open_dataset(demo_root)), disk, "disk full")


def test_song_that_moved_to_another_split_is_in_the_new_one_alone(songs: Path, copy_of_demo_store: CopyStore) -> None:
    song = open_dataset(songs).split("train")[0]
    shutil.move(song.mixture[0].path, songs / "test")
    path = copy_of_demo_store().path
    store, todo = run(path, open_dataset(songs))
    assert names(todo) == [song.name]
    for again in (store, SpectrogramStore.open(path)):
        tracks = again.manifest.tracks.values()
        assert [track.split for track in tracks if track.name == song.name] == ["test"]
        assert song.name not in {track.name for track in again.tracks("train") + again.tracks("valid")}


def test_track_with_a_lost_shard_is_made_again_and_only_it(demo_root: Path, copy_of_demo_store: CopyStore) -> None:
    store = copy_of_demo_store()
    track = store.tracks("test")[1]
    (store.path / track.arrays["vocals"].shard).unlink()
    again, todo = run(store.path, open_dataset(demo_root))
    assert names(todo) == [track.name]
    assert again.manifest == store.manifest
    assert again.damaged_shards() == []


# --- which store ----------------------------------------------------------------------------------------


@pytest.fixture
def real_songs(tmp_path: Path) -> Path:
    """Two songs of one second in folders."""
    for index, split in enumerate(("train", "test")):
        folder = tmp_path / "real" / split / f"Song {index}"
        folder.mkdir(parents=True)
        parts = synthesize_song(0, index, 1.0, 11025)
        for name in ("mixture", "vocals"):
            soundfile.write(folder / f"{name}.wav", parts[name].T, 11025)
    return tmp_path / "real"


def test_demo_store_gives_way_to_real_songs(real_songs: Path, copy_of_demo_store: CopyStore) -> None:
    path = copy_of_demo_store().path
    _, todo = run(path, open_dataset(real_songs))
    assert names(todo) == ["Song 0", "Song 1"]
    again = SpectrogramStore.open(path)
    assert sorted(track.name for track in again.manifest.tracks.values()) == ["Song 0", "Song 1"]
    assert again.manifest.dataset == {"kind": "folder", "root": str(real_songs.resolve())}
    assert len(list(path.glob("*/*/mixture"))) == 2


def test_store_of_real_songs_is_refused_for_the_demo_and_for_other_real_songs(
    real_songs: Path, demo_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.zarr"
    run(path, open_dataset(real_songs))
    before = paths_in(path)
    others = tmp_path / "others"
    shutil.copytree(real_songs / "train" / "Song 0", others / "train" / "Another song")
    for dataset in (open_dataset(demo_root), open_dataset(others), open_dataset(demo_root, "musdb18")):
        one_line(lambda dataset=dataset: open_store(path, dataset, FINE), path, dataset.root)  # type: ignore[misc]
    assert paths_in(path) == before
    SpectrogramStore.open(path)


def test_store_is_refused_for_another_preset_naming_what_differs(demo_root: Path, demo_store: SpectrogramStore) -> None:
    dataset = open_dataset(demo_root)
    one_line(lambda: open_store(demo_store.path, dataset, NOTEBOOK), demo_store.path, "sample_rate", "11025", "8192")


def test_moved_dataset_goes_on_with_its_store(real_songs: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    run(path, open_dataset(real_songs))
    moved = real_songs.rename(tmp_path / "moved")
    assert run(path, open_dataset(moved))[1].pending == ()
    assert SpectrogramStore.open(path).manifest.dataset["root"] == str(moved.resolve())


# --- songs that cannot be used --------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"this is no sound", None], ids=["empty", "text", "cut off"])
def test_broken_song_is_refused_by_name_and_leaves_no_track(songs: Path, tmp_path: Path, content: bytes | None) -> None:
    dataset = open_dataset(songs)
    song = dataset.split("train")[0]
    file = song.mixture[0].path
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    store = open_store(tmp_path / "s.zarr", dataset, FINE)
    before = paths_in(store.path)
    one_line(lambda: preprocess_song(song, store.path, FINE), file)
    assert [path for path in paths_in(store.path) if path != TEMPORARY_FOLDER] == before
    # The others go on, and the mended song comes later.
    other = dataset.split("train")[1]
    store.add(preprocess_song(other, store.path, FINE))
    store.save()
    assert [track.name for track in SpectrogramStore.open(store.path).manifest.tracks.values()] == [other.name]
    file.write_bytes(whole)
    assert song.name in names(plan(store, dataset))
    store.add(preprocess_song(song, store.path, FINE))
    store.save()
    assert len(SpectrogramStore.open(store.path).manifest.tracks) == 2


def test_checking_a_store_says_whether_the_demo_gives_way_and_writes_nothing(
    demo_root: Path, copy_of_demo_store: CopyStore, tmp_path: Path
) -> None:
    demo = open_dataset(demo_root)
    assert not check_store(tmp_path / "new.zarr", demo, FINE)
    assert not (tmp_path / "new.zarr").exists()
    store = copy_of_demo_store()
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    assert not check_store(store.path, demo, FINE)
    assert check_store(store.path, replace(demo, kind="folder"), FINE)
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before
