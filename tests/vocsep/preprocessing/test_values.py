"""What is stored of a song, compared with an independent computation."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from storage.files import file_digest
from storage.store import SpectrogramStore
from tests.vocsep.preprocessing.updates import FINE, NOTEBOOK, Floats, decoded, expected_spectrograms, run
from vocsep.datasets.layouts import open_dataset
from vocsep.demo.dataset import synthesize_song
from vocsep.preprocessing.track import preprocess_song
from vocsep.preprocessing.update import open_store


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
