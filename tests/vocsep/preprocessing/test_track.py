import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import pytest
import soundfile
import soxr
import zarr
from av.audio.stream import AudioStream
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from storage.manifest import TrackRecord
from tests.helpers import one_line, tree
from tests.vocsep.audio.audio_files import write_film
from vocsep.audio.reading import BLOCK_SAMPLES
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import AudioSource, Song
from vocsep.kernels import fill_magnitudes
from vocsep.preprocessing import track as song_spectrograms
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.room import estimated_bytes
from vocsep.preprocessing.track import preprocess_song
from vocsep.spectrograms.config import load_spectrogram_config

FINE = StoreConfig(spectrogram=load_spectrogram_config("fine"))
EXACT = StoreConfig(spectrogram=load_spectrogram_config("fine"), dtype="float32")
SPECTROGRAMS = ("mixture", "vocals", "accompaniment")
Floats = NDArray[Any]


def music(seed: int, seconds: float, rate: int = 44100, channels: int = 2) -> Floats:
    """Noise whose level goes up and down between loud and nearly silent, `(channels, samples)`."""
    samples = round(seconds * rate)
    level = 10.0 ** (-2.5 + 2 * np.sin(np.arange(samples) / rate * 2))
    return (level * np.random.default_rng(seed).uniform(-0.9, 0.9, (channels, samples))).astype(np.float32)


def put(path: Path, waveform: Floats, rate: int = 44100, subtype: str = "FLOAT") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform.T, rate, subtype=subtype)
    return path


def song_of(folder: Path, split: str = "train") -> Song:
    """The song whose mixture and vocals are wav files in `folder`."""
    return Song(
        id="a-song-1",
        name="A song",
        split=split,
        mixture=(AudioSource(folder / "mixture.wav"),),
        vocals=(AudioSource(folder / "vocals.wav"),),
        accompaniment=(),
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder to write tracks to."""
    for split in ("train", "valid", "test"):
        (tmp_path / "new.zarr" / split).mkdir(parents=True)
    return tmp_path / "new.zarr"


def stored(store: Path, record: TrackRecord) -> dict[str, Floats]:
    """Arrays of a track, as plain zarr reads them."""
    group = zarr.open_group(store / record.split / record.id, mode="r")
    return {name: np.asarray(array[...]) for name, array in group.arrays()}


def assert_refused(action: Callable[[], object], store: Path, *parts: object) -> None:
    """Check that `action` raises a `UserError` of one line that names all `parts`, and leaves nothing in the store."""
    one_line(action, *parts)
    assert [path for path in store.rglob("*") if path.is_file()] == []


def expected(waveform: Floats, rate: int) -> Floats:
    """Complex spectrogram of the whole waveform in float64, `(channels, frames, 512)`."""
    at_rate = soxr.resample(waveform.astype(np.float64).T, rate, 11025, quality="HQ").T
    spectrum = librosa.stft(at_rate, n_fft=1024, hop_length=256, center=True, pad_mode="constant")
    return np.asarray(spectrum[:, 1:].transpose(0, 2, 1))


# --- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [FINE, EXACT], ids=["float16", "float32"])
def test_song_of_many_blocks_has_the_spectrograms_of_the_whole_waveforms(
    tmp_path: Path, store: Path, config: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(song_spectrograms, "PIECE_SAMPLES", 5 * BLOCK_SAMPLES // 8)  # two blocks and a half
    seconds = 5.3 * BLOCK_SAMPLES / 44100
    mixture, vocals = music(1, seconds), music(2, seconds)
    put(tmp_path / "mixture.wav", mixture)
    put(tmp_path / "vocals.wav", vocals)
    record = preprocess_song(song_of(tmp_path), store, config)
    assert record.seconds == mixture.shape[1] / 44100
    assert record.frames == 1 + round(mixture.shape[1] / 4) // 256
    mixed, voice = expected(mixture, 44100), expected(vocals, 44100)
    found = stored(store, record)
    assert sorted(found) == sorted(SPECTROGRAMS)
    # Half a step of float16 (11 bits), and float32 arithmetic on sums of up to 512.
    relative = 1.001 * 2.0**-11 if config.dtype == "float16" else 0
    for name, spectrum in (("mixture", mixed), ("vocals", voice), ("accompaniment", mixed - voice)):
        assert found[name].dtype == config.dtype
        np.testing.assert_allclose(found[name].astype(float), np.abs(spectrum), rtol=relative, atol=512 * 2.0**-22)


def test_validation_song_of_many_blocks_has_the_whole_waveforms(tmp_path: Path, store: Path) -> None:
    seconds = 3.5 * BLOCK_SAMPLES / 44100
    signals = {name: music(seed, seconds) for seed, name in enumerate(("mixture", "vocals"))}
    for name, signal in signals.items():
        put(tmp_path / f"{name}.wav", signal)
    found = stored(store, preprocess_song(song_of(tmp_path, "valid"), store, FINE))
    for name, signal in signals.items():
        waveform = soxr.resample(signal.astype(np.float64).T, 44100, 11025).T
        np.testing.assert_allclose(found[f"{name}_waveform"], waveform, rtol=0, atol=2.0**-20)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000, 96000])
def test_other_rates_give_the_spectrograms_of_the_resampled_waveforms(tmp_path: Path, store: Path, rate: int) -> None:
    mixture = music(3, 4.0, rate)
    put(tmp_path / "mixture.wav", mixture, rate)
    put(tmp_path / "vocals.wav", music(4, 4.0, rate), rate)
    found = stored(store, preprocess_song(song_of(tmp_path), store, FINE))
    spectrum = np.abs(expected(mixture, rate))
    np.testing.assert_allclose(found["mixture"], spectrum, rtol=1.001 * 2.0**-11, atol=512 * 2.0**-22)


def test_silence_is_a_song_of_zeros(tmp_path: Path, store: Path) -> None:
    put(tmp_path / "mixture.wav", np.zeros((2, 100_000)))
    put(tmp_path / "vocals.wav", np.zeros((2, 100_000)))
    record = preprocess_song(song_of(tmp_path), store, FINE)
    assert record.frames == 1 + 25_000 // 256
    for values in stored(store, record).values():
        assert values.shape == (2, record.frames, 512)
        assert not values.any()


@pytest.mark.parametrize("source", ["vocals", "accompaniment"])
def test_song_of_one_source_has_its_spectrogram_and_no_other(tmp_path: Path, store: Path, source: str) -> None:
    waveform = music(5, 3.0)
    put(tmp_path / "songs" / "One.wav", waveform)
    (song,) = open_dataset(tmp_path / "songs", source).songs
    record = preprocess_song(song, store, EXACT)
    assert set(record.arrays) == {source}
    assert estimated_bytes([song], EXACT) == pytest.approx(record.bytes, rel=0.2)
    np.testing.assert_allclose(stored(store, record)[source], np.abs(expected(waveform, 44100)), rtol=1e-3, atol=1e-3)


def test_mono_song_has_one_channel_and_mono_vocals_of_a_stereo_song_stand_in_both(tmp_path: Path, store: Path) -> None:
    mixture, vocals = music(5, 1.0), music(6, 1.0, channels=1)
    put(tmp_path / "mixture.wav", mixture)
    put(tmp_path / "vocals.wav", vocals)
    found = stored(store, preprocess_song(song_of(tmp_path), store, FINE))
    assert found["mixture"].shape[0] == 2
    np.testing.assert_array_equal(found["vocals"][0], found["vocals"][1])
    put(tmp_path / "mixture.wav", mixture[:1])
    found = stored(store, preprocess_song(song_of(tmp_path), store, FINE))
    assert found["mixture"].shape[0] == found["accompaniment"].shape[0] == 1


# --- float16 --------------------------------------------------------------------------------------------


def half_values() -> Floats:
    """Every finite float16 from 0 on, as float32."""
    return np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)


def to_half(values: Floats) -> Floats:
    """Magnitudes of spectra that are these values, as they are stored."""
    spectra = np.zeros((2, 1, 1, len(values)), dtype=np.complex64)
    spectra[0, 0, 0] = values
    bits = np.empty((3, *spectra.shape[1:]), dtype=np.uint16)
    assert fill_magnitudes(spectra.view(np.float32), 0, bits)
    assert not bits[1].any()
    np.testing.assert_array_equal(bits[2], bits[0])
    found: Floats = bits[0, 0, 0].view(np.float16)
    return found


def test_half_of_every_float16_of_every_middle_and_of_its_neighbours_is_that_of_numpy() -> None:
    exact = half_values()
    middles = (exact[1:] + exact[:-1]) * np.float32(0.5)
    for values in (exact, middles, np.nextafter(middles, exact[1:]), np.nextafter(middles, exact[:-1])):
        np.testing.assert_array_equal(to_half(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


@given(
    values=arrays.arrays(
        np.float32, st.integers(1, 200), elements=st.floats(0, 65504, width=32, allow_subnormal=True, allow_nan=False)
    )
)
def test_half_of_any_magnitude_is_that_of_numpy(values: Floats) -> None:
    np.testing.assert_array_equal(to_half(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_song_too_loud_for_float16_is_refused_and_one_in_float32_is_not(tmp_path: Path, store: Path) -> None:
    # As a file of 16-bit numbers that were never scaled: a sum of 512 of them exceeds 65504.
    put(tmp_path / "mixture.wav", music(7, 1.0) * 32767)
    put(tmp_path / "vocals.wav", music(8, 1.0))
    song = song_of(tmp_path)
    assert_refused(lambda: preprocess_song(song, store, FINE), store, "A song", "too loud")
    found = stored(store, preprocess_song(song, store, EXACT))
    assert found["mixture"].max() > 65504
    assert np.isfinite(found["mixture"]).all()


# --- songs that cannot be used --------------------------------------------------------------------------


def stem_file(path: Path, streams: int = 5) -> Path:
    """A stem file of 3 s as MUSDB18 has them: AAC, the index before the sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as file:
        outputs = [file.add_stream("aac", rate=44100, layout="stereo") for _ in range(streams)]
        for number, output in enumerate(outputs):
            frame = av.AudioFrame.from_ndarray(music(number, 3.0), format="fltp", layout="stereo")
            frame.sample_rate = 44100
            file.mux(output.encode(frame))
        for output in outputs:
            file.mux(output.encode(None))
    return path


def stem_song(path: Path) -> Song:
    (song,) = open_dataset(path.parents[1], "musdb18").songs
    return song


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_stem_file_that_was_cut_off_is_refused(tmp_path: Path, store: Path, share: float) -> None:
    path = stem_file(tmp_path / "songs" / "train" / "Song.stem.mp4")
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    preprocess_song(stem_song(path), store, FINE)
    for old in sorted(store.rglob("*"), reverse=True):
        old.unlink() if old.is_file() else old.rmdir()
    (store / "train").mkdir()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(lambda: preprocess_song(stem_song(path), store, FINE), store, path)


@pytest.mark.parametrize("content", [b"", bytes(3000), b"no sound " * 999], ids=["empty", "zeros", "text"])
def test_stem_file_of_anything_else_is_refused(tmp_path: Path, store: Path, content: bytes) -> None:
    path = stem_file(tmp_path / "songs" / "train" / "Song.stem.mp4", 1)
    path.write_bytes(content)
    assert_refused(lambda: preprocess_song(stem_song(path), store, FINE), store, path)


def test_stem_file_without_vocals_or_without_any_sound_is_refused(tmp_path: Path, store: Path) -> None:
    path = stem_file(tmp_path / "songs" / "train" / "Song.stem.mp4", 2)
    assert_refused(lambda: preprocess_song(stem_song(path), store, FINE), store, path, "has 2 audio streams")
    write_film(path)
    assert_refused(lambda: preprocess_song(stem_song(path), store, FINE), store, path, "has 0 audio streams")


def test_wrong_numbers_lengths_rates_and_channels_are_refused(tmp_path: Path, store: Path) -> None:
    good, song = music(1, 2.0), song_of(tmp_path)
    wrong = good.copy()
    wrong[1, -5] = np.nan
    for vocals, rate, parts in (
        (wrong, 44100, (tmp_path / "vocals.wav", "NaN")),
        (np.where(np.isnan(wrong), np.inf, wrong), 44100, (tmp_path / "vocals.wav", "infinite")),
        (good[:, :-10_000], 44100, ("A song", "differ in length", "1.77 s", "2.00 s")),
        (good, 48000, ("A song", "different sample rates", "44100", "48000")),
        (music(1, 2.0, channels=3), 44100, ("A song", "channel")),
    ):
        put(tmp_path / "mixture.wav", good)
        put(tmp_path / "vocals.wav", vocals, rate)
        assert_refused(lambda: preprocess_song(song, store, FINE), store, *parts)
    put(tmp_path / "mixture.wav", music(1, 2.0, channels=6))
    put(tmp_path / "vocals.wav", music(2, 2.0, channels=6))
    assert_refused(lambda: preprocess_song(song, store, FINE), store, "A song", "6 channels")


def test_song_shorter_than_one_sample_at_the_presets_rate_is_refused(tmp_path: Path, store: Path) -> None:
    for name in ("mixture", "vocals"):
        put(tmp_path / f"{name}.wav", np.full((2, 1), 0.5))
    assert_refused(lambda: preprocess_song(song_of(tmp_path), store, FINE), store, "A song", "too short")
    for name in ("mixture", "vocals"):
        put(tmp_path / f"{name}.wav", np.full((2, 3), 0.5))
    assert preprocess_song(song_of(tmp_path), store, FINE).frames == 1


@pytest.mark.parametrize(
    "name",
    [
        "Sigur R\u00f3s \u2013 \u201cSvefn-g-englar\u201d (\u65e5\u672c\u8a9e) \U0001f3b5",
        'it\'s "quoted" & $HOME `id` %s {0} \\ <b>',
        "-rf *",
        "trailing dot. ",
        "AC\u2215DC \u2044 slashes that are none",
        "\u00f6" * 120,
    ],
)
def test_name_of_any_kind_is_kept_and_no_path_is_made_of_it(tmp_path: Path, store: Path, name: str) -> None:
    for file in ("mixture.wav", "vocals.wav"):
        put(tmp_path / "songs" / "train" / name / file, music(1, 0.2, 8000), 8000)
    (song,) = open_dataset(tmp_path / "songs", "folder").songs
    record = preprocess_song(song, store, FINE)
    assert record.name == song.name == name
    assert zarr.open_group(store / "train" / record.id, mode="r").attrs["name"] == name
    assert record.id.isascii()
    assert json.loads(record.model_dump_json())["name"] == name


def test_tags_with_slashes_line_breaks_and_bytes_that_are_no_text_change_nothing(tmp_path: Path, store: Path) -> None:
    vocals = put(tmp_path / "vocals.wav", music(2, 1.0))
    for title in ("AC/DC: ../../etc", "two\nlines", "\udce9"):
        with av.open(str(vocals)) as source, av.open(str(tmp_path / "mixture.mkv"), "w") as file:
            file.metadata["title"] = title.encode(errors="replace").decode()
            stream = file.add_stream_from_template(source.streams.audio[0])
            assert isinstance(stream, AudioStream)
            for packet in source.demux(audio=0):
                if packet.size:
                    packet.stream = stream
                    file.mux(packet)
        (tmp_path / "mixture.mkv").replace(tmp_path / "mixture.wav")  # what a file is, its content tells
        found = stored(store, preprocess_song(song_of(tmp_path), store, FINE))
        assert not found["accompaniment"].any()


# --- memory and other processes -------------------------------------------------------------------------

ONE_SONG = """
import sys
from pathlib import Path
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.datasets.songs import AudioSource, Song
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.room import estimated_bytes
from vocsep.preprocessing.track import preprocess_song
folder, store = map(Path, sys.argv[1:])
parts = [(AudioSource(folder / f"{name}.wav"),) for name in ("mixture", "vocals")]
song = Song("a-song-1", "A song", "train", *parts, ())
preprocess_song(song, store, StoreConfig(spectrogram=load_spectrogram_config("fine")))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def in_new_process(folder: Path, store: Path, **environment: str) -> int:
    """Peak memory in bytes of a fresh process that makes the track."""
    done = subprocess.run(
        [sys.executable, "-c", ONE_SONG, str(folder), str(store)],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return 1024 * int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_ten_minutes_take_little_more_memory_than_their_waveforms_at_the_presets_rate(
    tmp_path: Path, store: Path
) -> None:
    peaks = []
    for minutes in (0.1, 10.0):
        for seed, name in enumerate(("mixture", "vocals")):
            signal = np.tile(music(seed, 6.0, 22050), (1, round(10 * minutes)))
            put(tmp_path / f"{name}.wav", signal, 22050, "PCM_16")
        peaks.append(in_new_process(tmp_path, store))
    two_waveforms = 2 * 2 * 600 * 11025 * 4
    assert peaks[1] < 700e6
    assert peaks[1] - peaks[0] < 1.6 * two_waveforms


def test_every_process_writes_the_same_bytes(tmp_path: Path, store: Path) -> None:
    for seed, name in enumerate(("mixture", "vocals")):
        put(tmp_path / f"{name}.wav", music(seed, 9.0), subtype="PCM_16")
    track = store / "train" / "a-song-1"
    preprocess_song(song_of(tmp_path), store, FINE)
    first = tree(track)
    assert len(first) >= 7
    for hash_seed, threads in (("1", "1"), ("2", "4")):
        in_new_process(tmp_path, store, PYTHONHASHSEED=hash_seed, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
        assert tree(track) == first
