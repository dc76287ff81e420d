import itertools
import os
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import UserError
from tests.disk import small_disk
from tests.helpers import decibels, one_line
from tests.vocsep.audio.audio_files import TAGS, cover_of, tags_of, write_song
from vocsep.arrays import Waveform
from vocsep.audio.formats import AudioFormat, BitDepth
from vocsep.audio.info import AudioInfo
from vocsep.audio.reading import audio_info, decode
from vocsep.audio.writing import AudioWriter

RATE = 44100
RATES = (8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000)
NAMES = {
    "mono": ("FC",),
    "stereo": ("FL", "FR"),
    "2.1": ("FL", "FR", "LFE"),
    "3.0": ("FL", "FR", "FC"),
    "4.0": ("FL", "FR", "FC", "BC"),
    "quad": ("FL", "FR", "BL", "BR"),
    "5.0": ("FL", "FR", "FC", "BL", "BR"),
    "5.1": ("FL", "FR", "FC", "LFE", "BL", "BR"),
    "5.1(side)": ("FL", "FR", "FC", "LFE", "SL", "SR"),
    "6.1": ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    "7.1": ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
    "downmix": ("DL", "DR"),
    **{f"{channels} channels": ("NONE",) * channels for channels in (1, 2, 3, 4, 6, 7, 12)},
}
FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
# Which of FFmpeg's rates and layouts each lossy format knows.
HIGHEST_RATE = {"mp3": 48_000, "m4a": 96_000}


def like(layout: str = "stereo", sample_rate: int = RATE, **more: Any) -> AudioInfo:
    return AudioInfo(Path("song.wav"), sample_rate, layout, NAMES[layout], **more)


def tones(layout: str, samples: int, sample_rate: int) -> Waveform:
    """A tone in each channel: another one in each, and another loudness."""
    times = np.arange(samples) / sample_rate
    count = len(NAMES[layout])
    return np.stack(
        [0.1 * (n + 1) * np.sin(2 * np.pi * (400 + 100 * n) * times) for n in range(count)], dtype=np.float32
    )


def save(
    path: Path, container: AudioFormat, waveform: Waveform, info: AudioInfo, bit_depth: BitDepth | None = None
) -> Path:
    """Written in pieces of uneven sizes."""
    with AudioWriter(path, container, info, bit_depth) as writer:
        start = 0
        for size in itertools.cycle((1, 5000, 0, 777, 40_000)):
            if start >= waveform.shape[1]:
                break
            writer.write(waveform[:, start : start + size])
            start += size
    return path


def assert_refused(path: Path, info: AudioInfo, container: AudioFormat, bit_depth: BitDepth | None = None) -> str:
    silence = np.zeros((info.channels, 100), np.float32)
    message = one_line(lambda: save(path, container, silence, info, bit_depth), path)
    assert not path.parent.exists() or not list(path.parent.iterdir())
    return message


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("container", FORMATS)
def test_file_has_the_rate_layout_and_exact_length_of_what_was_written(
    tmp_path: Path, container: AudioFormat, rate: int, layout: str
) -> None:
    path = tmp_path / f"a.{container}"
    if rate > HIGHEST_RATE.get(container, rate) or (container == "mp3" and layout == "5.1"):
        assert "use wav" in assert_refused(path, like(layout, rate), container)
        return
    for samples in (4321, 6 * 1024):
        waveform = tones(layout, samples, rate)
        save(path, container, waveform, like(layout, rate))
        info = audio_info(path)
        assert (info.sample_rate, info.layout, info.channel_names) == (rate, layout, NAMES[layout])
        decoded, decoded_rate = decode(path)
        assert decoded_rate == rate
        if container != "m4a":
            assert decoded.shape == waveform.shape
        else:  # FFmpeg hands out the last frame whole; the container tells its length
            assert decoded.shape[1] == -(-samples // 1024) * 1024
        if container in ("wav", "flac", "m4a"):
            assert info.seconds * rate == pytest.approx(samples, abs=1e-3)
        if container in ("wav", "flac", "mp3", "ogg"):
            found = soundfile.info(path)
            assert (found.frames, found.samplerate, found.channels) == (samples, rate, len(waveform))
        # Each channel is where it was: nothing but its own tone.
        decoded = decoded[:, :samples]
        spectra = np.abs(np.fft.rfft(decoded * np.hanning(samples)))
        hertz = spectra.argmax(axis=1) * rate / samples
        expected = [400 + 100 * n for n in range(len(waveform))]
        if container in ("ogg", "m4a") and layout == "5.1":  # the low-frequency channel may be coded as it likes
            hertz[3] = expected[3]
        np.testing.assert_allclose(hertz, expected, atol=2 * rate / samples)


@pytest.mark.parametrize("samples", [1, 2, 46, 47, 576, 1105, 1152, 1153, 1198, 1199, 1200, 2304 + 20, 3 * 1152 - 7])
@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "ogg"])
def test_length_is_exact_for_every_length(tmp_path: Path, container: AudioFormat, samples: int) -> None:
    path = save(tmp_path / f"a.{container}", container, tones("stereo", samples, RATE), like())
    assert decode(path)[0].shape == (2, samples)
    assert soundfile.info(path).frames == samples


@pytest.mark.parametrize("samples", [1, 1000, 1024, 1025, 44_100, 44_101])
def test_m4a_tells_its_length_to_the_sample(tmp_path: Path, samples: int) -> None:
    path = save(tmp_path / "a.m4a", "m4a", tones("stereo", samples, RATE), like())
    assert audio_info(path).seconds * RATE == pytest.approx(samples, abs=1e-3)
    # The decoder hands out the last frame whole.
    assert 0 <= decode(path)[0].shape[1] - samples < 1024


@pytest.mark.parametrize("container", ["mp3", "ogg", "m4a"])
def test_lossy_files_hold_the_sound_at_its_place(tmp_path: Path, container: AudioFormat) -> None:
    waveform = tones("stereo", 3 * RATE // 2, RATE)
    decoded, _ = decode(save(tmp_path / f"a.{container}", container, waveform, like()))
    # One sample late would be an error of the tone's own power times (2 sin(pi f / rate))^2: 22 dB at 550 Hz.
    assert decibels(waveform, waveform - decoded[:, : waveform.shape[1]]) > 30


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("container", FORMATS)
def test_layout_is_kept_or_refused_before_anything_is_written(
    tmp_path: Path, container: AudioFormat, layout: str
) -> None:
    kept = {
        "wav": set(NAMES) - {"downmix", "1 channels", "2 channels"},
        "flac": {"mono", "stereo", "2.1", "3.0", "4.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1"},
        "mp3": {"mono", "stereo"},
        "ogg": {"mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"},
        "m4a": {"mono", "stereo", "2.1", "3.0", "4.0", "quad", "5.0", "5.1"},
    }[container]
    # What has no name there gets that of the usual speakers; wav does not tell what one or two channels are.
    renamed = {
        "1 channels": "mono",
        "2 channels": "stereo",
        "3 channels": "3.0",
        "4 channels": "quad",
        "6 channels": "5.1",
        "5.1(side)": "5.1",
        "7 channels": "6.1",
    }
    expected = layout if layout in kept else renamed.get(layout, "")
    if container == "flac":
        expected = {"6 channels": "5.1(side)", "downmix": "stereo"}.get(layout, expected)
    if container == "wav" and layout == "downmix":
        expected = "stereo"
    path = tmp_path / "out" / f"a.{container}"
    if expected not in kept:
        assert "use wav" in assert_refused(path, like(layout), container)
        return
    waveform = tones(layout, 4000, RATE)
    save(path, container, waveform, like(layout))
    assert audio_info(path).layout == expected
    if container in ("wav", "flac"):
        np.testing.assert_allclose(decode(path)[0], waveform, rtol=0, atol=2.0**-23)


@pytest.mark.parametrize(
    ("container", "bit_depth", "subtype"),
    [
        ("wav", None, "FLOAT"),
        ("wav", "32f", "FLOAT"),
        ("wav", "24", "PCM_24"),
        ("wav", "16", "PCM_16"),
        ("flac", None, "PCM_24"),
        ("flac", "24", "PCM_24"),
        ("flac", "16", "PCM_16"),
    ],
)
def test_samples_are_rounded_to_the_bit_depth_and_no_further(
    tmp_path: Path, container: AudioFormat, bit_depth: BitDepth | None, subtype: str
) -> None:
    waveform = np.random.default_rng(0).uniform(-1, 1, (2, 30_000)).astype(np.float32)
    waveform[:, :3] = [1, -1, 0]
    path = save(tmp_path / f"a.{container}", container, waveform, like(), bit_depth)
    assert soundfile.info(path).subtype == subtype
    found = soundfile.read(path, dtype="float64")[0].T
    bits = {"FLOAT": None, "PCM_24": 23, "PCM_16": 15}[subtype]
    if bits is None:
        np.testing.assert_array_equal(found, waveform)
    else:
        steps = np.rint(waveform.astype(np.float64) * 2**bits).clip(-(2**bits), 2**bits - 1)
        np.testing.assert_array_equal(found, steps / 2**bits)


@pytest.mark.parametrize(
    ("container", "bit_depth", "advice"),
    [("flac", "32f", "use 24 or 16"), ("mp3", "16", "it has none"), ("ogg", "24", "none"), ("m4a", "32f", "none")],
)
def test_bit_depth_that_a_format_does_not_have_is_refused_with_advice(
    tmp_path: Path, container: AudioFormat, bit_depth: BitDepth, advice: str
) -> None:
    assert advice in assert_refused(tmp_path / "out" / "a", like(), container, bit_depth)


@pytest.mark.parametrize(
    ("container", "channels", "rate", "advice"),
    [
        ("wav", 65, RATE, "wav holds at most 64 channels, not 65, and no other format does"),
        ("flac", 65, RATE, "and no other format does"),
        ("flac", 9, RATE, "; use wav"),
        ("flac", 2, 700_000, "; use wav"),
        ("wav", 2, 800_000, "and no other format does"),
        ("mp3", 2, 96_000, "; use wav or flac"),
        ("ogg", 9, RATE, "; use wav"),
    ],
)
def test_advice_is_a_format_that_can_hold_the_song(
    tmp_path: Path, container: AudioFormat, channels: int, rate: int, advice: str
) -> None:
    info = AudioInfo(tmp_path / "song.wav", rate, f"{channels} channels", ("NONE",) * channels)
    if channels == 2:
        info = like(sample_rate=rate)
    assert assert_refused(tmp_path / "out" / "a", info, container).endswith(advice)


def test_samples_beyond_full_scale_are_kept_in_float_and_elsewhere_cut_off_and_counted(tmp_path: Path) -> None:
    loud = np.array([[1.5, -1.5, 1.0, -1.0, 0.25, 0.0]], np.float32)
    kinds: list[tuple[AudioFormat, BitDepth, int]] = [
        ("wav", "32f", 0),
        ("wav", "16", 2),
        ("wav", "24", 2),
        ("flac", "24", 2),
    ]
    for container, depth, clipped in kinds:
        path = tmp_path / f"a.{container}"
        with AudioWriter(path, container, like("mono"), depth) as writer:
            writer.write(loud)
        assert writer.clipped == clipped
        decoded, _ = decode(path)
        if not clipped:
            np.testing.assert_array_equal(decoded, loud)
        else:
            np.testing.assert_allclose(decoded, loud.clip(-1, 1), rtol=0, atol=2.0**-15)


waveforms = st.builds(
    lambda channels, samples, seed: np.random.default_rng(seed).uniform(-1, 1, (channels, samples)).astype(np.float32),
    st.integers(1, 2),
    st.integers(1, 5000),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=25, deadline=None)
@given(waveform=waveforms, rate=st.sampled_from([8000, 22050, 44100, 48000, 96000]))
def test_wav_comes_back_bit_by_bit_and_flac_within_a_step_of_24_bits(
    tmp_path_factory: pytest.TempPathFactory, waveform: Waveform, rate: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "round-trips"
    info = like({1: "mono", 2: "stereo"}[len(waveform)], rate)
    decoded, found_rate = decode(save(folder / "a.wav", "wav", waveform, info))
    assert found_rate == rate
    np.testing.assert_array_equal(decoded, waveform)
    decoded, found_rate = decode(save(folder / "a.flac", "flac", waveform, info))
    assert found_rate == rate
    # A whole step at full scale: the largest 24-bit number is 1 - 2^-23.
    np.testing.assert_allclose(decoded, waveform, rtol=0, atol=2.0**-23)


def test_wav_has_room_for_sizes_beyond_4_gigabytes(tmp_path: Path) -> None:
    content = save(tmp_path / "a.wav", "wav", tones("stereo", 10, RATE), like()).read_bytes()
    # The chunk that becomes `ds64` of an RF64 file if the sound turns out to be that long.
    assert content[:4] == b"RIFF"
    assert content[12:16] == b"JUNK"
    assert int.from_bytes(content[16:20], "little") >= 28


@pytest.mark.parametrize("container", FORMATS)
def test_tags_are_kept(tmp_path: Path, container: AudioFormat) -> None:
    path = save(tmp_path / f"a.{container}", container, tones("stereo", 5000, RATE), like(tags=TAGS | {"encoder": "x"}))
    found = tags_of(path)
    expected = dict(TAGS)
    assert {name: found.get(name) for name in expected} == expected
    assert found.get("encoder") != "x"


@pytest.mark.parametrize("container", ["mp3", "flac", "m4a"])
@pytest.mark.parametrize("source", ["mp3", "flac", "m4a"])
def test_cover_picture_is_kept_byte_by_byte(tmp_path: Path, source: str, container: AudioFormat) -> None:
    song = write_song(tmp_path / f"song.{source}", tones("stereo", 9000, RATE), RATE, tags=TAGS, cover=True)
    picture = cover_of(song)
    assert picture is not None
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    path = save(tmp_path / f"a.{container}", container, tones("stereo", 5000, RATE), audio_info(song))
    assert cover_of(path) == picture
    assert tags_of(path)["title"] == TAGS["title"]
    assert abs(decode(path)[0].shape[1] - 5000) < (1024 if container == "m4a" else 1)


def test_cover_picture_that_is_broken_or_of_a_rare_kind_does_not_cost_the_song(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.mp3", tones("stereo", 9000, RATE), RATE, cover=True)
    for number, replaced in enumerate((b"image/gif", b"image/xyz")):
        content = song.read_bytes()
        assert b"image/png" in content
        other = tmp_path / f"{number}.mp3"
        other.write_bytes(content.replace(b"image/png", replaced))
        for container in ("mp3", "flac", "m4a"):
            save(tmp_path / f"a.{container}", container, tones("stereo", 5000, RATE), audio_info(other))
            assert (tmp_path / f"a.{container}").is_file()


def test_file_is_replaced_whole_folders_are_made_and_no_temporary_stays(tmp_path: Path) -> None:
    for container in FORMATS:
        path = tmp_path / "new" / container / f"song.{container}"
        save(path, container, tones("stereo", 20_000, RATE), like())
        save(path, container, tones("stereo", 3 * 1024, RATE), like())
        assert decode(path)[0].shape == (2, 3 * 1024)
        assert list(path.parent.iterdir()) == [path]


def test_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save(tmp_path / "a.wav", "wav", tones("mono", 100, RATE), like("mono"))
    finally:
        os.umask(before)
    assert oct((tmp_path / "a.wav").stat().st_mode & 0o777) == oct(0o644)


@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError])
def test_error_midway_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, container: AudioFormat, error: type[BaseException]
) -> None:
    path = tmp_path / f"song.{container}"
    path.write_bytes(b"what was here before")

    def write_half() -> None:
        with AudioWriter(path, container, like()) as writer:
            writer.write(tones("stereo", 30_000, RATE))
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"what was here before"
    assert list(tmp_path.iterdir()) == [path]


def test_finished_file_has_its_name_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with AudioWriter(path, "wav", like()) as writer:
        writer.write(tones("stereo", 100, RATE))
        writer.finish()
        assert not path.exists()
    assert soundfile.info(path).frames == 100


def test_file_that_was_finished_before_an_error_is_not_there(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with AudioWriter(tmp_path / "b.wav", "wav", like()) as writer:
            writer.finish()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("container", FORMATS)
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, container: AudioFormat) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 200_000)).astype(np.float32)
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        path = disk / f"a.{container}"
        one_line(lambda: save(path, container, noise, like()), path, "cannot be written")
        assert list(disk.iterdir()) == []


def test_place_where_no_file_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    for path in (tmp_path / "file" / "song.wav", tmp_path / "folder.wav"):
        one_line(lambda path=path: save(path, "wav", tones("stereo", 100, RATE), like()), path, "cannot be written")  # type: ignore[misc]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.wav"]


def test_ffmpeg_does_not_write_to_the_users_terminal() -> None:
    assert av.logging.get_level() is None
