import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from tests.helpers import decibels, one_line
from tests.vocsep.audio.audio_files import LAYOUTS, write_film
from vocsep.arrays import Waveform
from vocsep.audio.formats import AUDIO_SUFFIXES
from vocsep.audio.reading import BLOCK_SAMPLES, _StreamBuffer, decode, decode_blocks
from vocsep.audio.resampling import Resampler, resample, to_channels

RATE = 44100


def tones(seconds: float, rate: int = RATE, channels: int = 2, first: float = 330.0) -> Waveform:
    """Another pair of tones in each channel, each rising and falling once."""
    time = np.arange(round(seconds * rate)) / rate
    swell = np.sin(np.pi * time / seconds)
    return np.stack(
        [
            swell * (0.4 * np.sin(2 * np.pi * first * (n + 1) * time) + 0.2 * np.sin(2 * np.pi * 517 * time))
            for n in range(channels)
        ]
    ).astype(np.float32)


def write(
    path: Path,
    signals: list[NDArray[Any]],
    codec: str,
    sample_format: str = "fltp",
    rate: int = RATE,
    bit_rate: int | None = None,
    container: str | None = None,
) -> None:
    """Write each signal as one audio stream with PyAV, as planar or packed frames of `sample_format`."""
    # One tick per sample, so that an mp4's edit list can tell the exact length.
    options = {"movie_timescale": str(rate)} if path.suffix in (".m4a", ".mp4") else {}
    with av.open(str(path), "w", format=container, options=options) as file:
        streams = []
        for signal in signals:
            stream = file.add_stream(codec, rate=rate, layout=LAYOUTS[len(signal)])
            assert isinstance(stream, AudioStream)
            if bit_rate is not None:
                stream.bit_rate = bit_rate
            streams.append(stream)
        block = 4096
        for start in range(0, max(signal.shape[1] for signal in signals), block):
            for stream, signal in zip(streams, signals, strict=True):
                part = signal[:, start : start + block]
                if part.shape[1] == 0:
                    continue
                if not sample_format.endswith("p"):
                    part = part.T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(part), format=sample_format, layout=LAYOUTS[len(signal)]
                )
                frame.sample_rate = rate
                frame.pts = start
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))


def decode_streams(path: Path, streams: tuple[int, ...]) -> tuple[list[Waveform], int]:
    blocks = list(decode_blocks(path, streams))
    waveforms = [np.concatenate([block.waveforms[n] for block in blocks], axis=1) for n in range(len(streams))]
    return waveforms, blocks[0].sample_rate


def assert_refused(path: Path, action: Callable[[], object] | None = None) -> str:
    return one_line(action or (lambda: decode(path)), path)


# --- decoding -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("codec", "sample_format", "dtype", "scale"),
    [
        ("pcm_u8", "u8", np.uint8, 128.0),
        ("pcm_s16le", "s16", np.int16, 2.0**15),
        ("pcm_s16be", "s16", np.int16, 2.0**15),
        ("pcm_s32le", "s32", np.int32, 2.0**31),
        ("pcm_f32le", "flt", np.float32, 1.0),
        ("pcm_f64le", "dbl", np.float64, 1.0),
    ],
)
def test_uncompressed_samples_are_scaled_exactly(
    tmp_path: Path, codec: str, sample_format: str, dtype: Any, scale: float, channels: int
) -> None:
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        samples = np.random.default_rng(0).integers(
            limits.min, limits.max, (channels, 9999), dtype=dtype, endpoint=True
        )
        samples[:, 0], samples[:, 1] = limits.min, limits.max
        expected = (samples.astype(np.float64) - (128 if dtype == np.uint8 else 0)) / scale
    else:
        samples = np.random.default_rng(0).uniform(-1.5, 1.5, (channels, 9999)).astype(dtype)
        expected = samples.astype(np.float64)
    path = tmp_path / ("sound.aiff" if codec.endswith("be") else "sound.wav")
    write(path, [samples], codec, sample_format, rate=22050)
    waveform, rate = decode(path)
    assert waveform.dtype == np.float32
    assert rate == 22050
    np.testing.assert_array_equal(waveform, expected.astype(np.float32))


@pytest.mark.parametrize("bits", [16, 24])
def test_flac_samples_are_scaled_exactly(tmp_path: Path, bits: int) -> None:
    samples = np.random.default_rng(1).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 9999))
    path = tmp_path / "sound.flac"
    # soundfile reads integers as the upper bits of 32.
    soundfile.write(path, (samples << (32 - bits)).astype(np.int32).T, RATE, subtype=f"PCM_{bits}")
    waveform, rate = decode(path)
    assert rate == RATE
    np.testing.assert_array_equal(waveform, (samples / 2.0 ** (bits - 1)).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "sample_format"),
    [
        (".mp3", "libmp3lame", 44100, "fltp"),
        (".mp3", "libmp3lame", 22050, "fltp"),
        (".m4a", "aac", 44100, "fltp"),
        (".mp4", "aac", 48000, "fltp"),
        (".ogg", "vorbis", 44100, "fltp"),
        (".opus", "libopus", 48000, "flt"),
        (".webm", "libopus", 48000, "flt"),
        (".mkv", "flac", 44100, "s16"),
    ],
)
def test_compressed_file_keeps_rate_channels_and_the_place_of_every_sample(
    tmp_path: Path, suffix: str, codec: str, rate: int, sample_format: str, channels: int
) -> None:
    # A whole number of AAC frames; the others take any length.
    samples = 45 * 1024 if codec == "aac" else 45 * 1024 + 333
    signal = tones(samples / rate, rate, channels)
    written = (signal * 32767).astype(np.int16) if sample_format == "s16" else signal
    path = tmp_path / f"sound{suffix}"
    assert suffix in AUDIO_SUFFIXES
    if codec == "vorbis":  # FFmpeg's own encoder for it is stereo only
        soundfile.write(path, written.T, rate, format="OGG", subtype="VORBIS")
    else:
        write(path, [written], codec, sample_format, rate, None if codec == "flac" else 96_000 * channels)
    waveform, found_rate = decode(path)
    assert found_rate == rate
    assert waveform.dtype == np.float32
    # Matroska tells times to the millisecond.
    slack = {".webm": rate // 1000}.get(suffix, 0)
    assert len(waveform) == channels
    assert abs(waveform.shape[1] - samples) <= slack
    waveform = np.pad(waveform, ((0, 0), (0, slack)))[:, :samples]
    # A tone that is one sample late has its own power times (2 sin(pi f / rate))^2 as an error: 26 dB for the lowest.
    assert decibels(signal, signal - waveform) > 26


def test_aac_that_ends_within_a_frame_is_at_most_that_frame_longer(tmp_path: Path) -> None:
    signal = tones((10 * 1024 + 100) / RATE)
    write(tmp_path / "sound.m4a", [signal], "aac", bit_rate=192_000)
    waveform, _ = decode(tmp_path / "sound.m4a")
    assert 0 <= waveform.shape[1] - signal.shape[1] < 1024


def five_streams(path: Path) -> list[NDArray[Any]]:
    signals = [tones(0.3, first=200.0 * (number + 1)) for number in range(5)]
    write(path, [(signal * 32767).astype(np.int16) for signal in signals], "flac", "s16")
    return [(signal * 32767).astype(np.int16) / np.float32(32768) for signal in signals]


@pytest.mark.parametrize("streams", [(0,), (4,), (0, 4), (4, 0), (3, 1, 2), (0, 1, 2, 3, 4)])
def test_streams_come_in_the_order_asked_for(tmp_path: Path, streams: tuple[int, ...]) -> None:
    path = tmp_path / "stems.mkv"
    expected = five_streams(path)
    waveforms, rate = decode_streams(path, streams)
    assert rate == RATE
    assert len(waveforms) == len(streams)
    for waveform, stream in zip(waveforms, streams, strict=True):
        np.testing.assert_array_equal(waveform, expected[stream])


def test_only_the_streams_asked_for_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "stems.mkv"
    expected = five_streams(path)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        # The bytes of stream 2 are found by their content: Matroska stores packets as they are.
        packets = [bytes(packet) for packet in container.demux(container.streams.audio[2]) if packet.size]
    for packet in packets:
        place = bytes(content).index(packet)
        content[place : place + len(packet)] = b"\x55" * len(packet)
    path.write_bytes(content)
    waveforms, _ = decode_streams(path, (0, 1, 3, 4))
    for waveform, stream in zip(waveforms, (0, 1, 3, 4), strict=True):
        np.testing.assert_array_equal(waveform, expected[stream])
    assert_refused(path, lambda: decode_streams(path, (2,)))


def test_file_with_a_picture_is_read_as_its_audio(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    signal = (tones(0.3) * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for number in range(5):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        assert isinstance(audio, AudioStream)
        frame = av.AudioFrame.from_ndarray(signal.T.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = RATE
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    np.testing.assert_array_equal(decode(path)[0], signal / np.float32(32768))


# --- block by block -------------------------------------------------------------------------------------


def test_blocks_are_full_until_the_end_and_joined_the_whole_sound(tmp_path: Path) -> None:
    samples = 3 * BLOCK_SAMPLES + 12_345
    path = tmp_path / "stems.mkv"
    signals = [(tones(samples / RATE, first=first) * 32767).astype(np.int16) for first in (200, 300, 400)]
    write(path, list(signals), "flac", "s16")
    blocks = list(decode_blocks(path, (2, 0)))
    assert [[part.shape for part in block.waveforms] for block in blocks] == [
        [(2, size)] * 2 for size in [BLOCK_SAMPLES] * 3 + [12_345]
    ]
    assert {block.sample_rate for block in blocks} == {RATE}
    for place, stream in enumerate((2, 0)):
        joined = np.concatenate([block.waveforms[place] for block in blocks], axis=1)
        np.testing.assert_array_equal(joined, signals[stream] / np.float32(32768))


def test_blocks_of_aac_hold_the_samples_of_every_frame_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    write(path, [tones(2.2 * BLOCK_SAMPLES / RATE)], "aac", bit_rate=128_000)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    joined = np.concatenate([block.waveforms[0] for block in decode_blocks(path)], axis=1)
    np.testing.assert_array_equal(joined, np.concatenate(frames, axis=1))


def test_stream_that_ends_early_has_short_and_then_empty_blocks(tmp_path: Path) -> None:
    path = tmp_path / "stems.mkv"
    long, short = 2 * BLOCK_SAMPLES + 500, BLOCK_SAMPLES + 7
    signals = [np.full((channels, size), 99, np.int16) for channels, size in ((2, long), (1, short))]
    write(path, list(signals), "flac", "s16")
    blocks = [[part.shape for part in block.waveforms] for block in decode_blocks(path, (0, 1))]
    assert blocks == [[(2, BLOCK_SAMPLES), (1, BLOCK_SAMPLES)], [(2, BLOCK_SAMPLES), (1, 7)], [(2, 500), (1, 0)]]
    assert [waveform.shape for waveform in decode_streams(path, (0, 1))[0]] == [(2, long), (1, short)]


def test_streams_that_lie_one_after_the_other_in_their_file_come_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "stems.mkv"
    samples = 3 * BLOCK_SAMPLES + 11
    signals = [np.random.default_rng(n).integers(-9999, 9999, (1, samples), dtype=np.int16) for n in range(2)]
    with av.open(str(path), "w") as file:
        outputs = [file.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in signals]
        for output, signal in zip(outputs, signals, strict=True):
            for start in range(0, samples, 4096):
                frame = av.AudioFrame.from_ndarray(signal[:, start : start + 4096], format="s16", layout="mono")
                frame.sample_rate, frame.pts = RATE, start
                for packet in output.encode(frame):
                    file.mux_one(packet)
    blocks = list(decode_blocks(path, (0, 1)))
    assert len(blocks) == 4
    for place, signal in enumerate(signals):
        joined = np.concatenate([block.waveforms[place] for block in blocks], axis=1)
        np.testing.assert_array_equal(joined, signal / np.float32(32768))


def test_nan_in_a_late_block_is_refused_after_the_blocks_before_it(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    signal = np.zeros((2, 3 * BLOCK_SAMPLES), np.float32)
    signal[1, -1] = np.nan
    soundfile.write(path, signal.T, RATE, subtype="FLOAT")
    blocks = decode_blocks(path)
    assert [next(blocks).waveforms[0].shape for _ in range(2)] == [(2, BLOCK_SAMPLES)] * 2
    assert_refused(path, lambda: next(blocks))


# --- files that cannot be used --------------------------------------------------------------------------


def test_missing_stream_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "stems.mkv"
    five_streams(path)
    message = assert_refused(path, lambda: decode_streams(path, (0, 5)))
    assert "5" in message


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in assert_refused(tmp_path / "missing.wav")


def test_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    assert_refused(tmp_path / "folder.wav")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".ogg", ".txt"])
@pytest.mark.parametrize("content", [b"", b"This is no audio.\n" * 200, bytes(5000)], ids=["empty", "text", "zeros"])
def test_file_that_is_no_audio_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"song{suffix}"
    path.write_bytes(content)
    assert_refused(path)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [("song.m4a", "aac", "fltp"), ("song.flac", "flac", "s16"), ("song.wav", "pcm_s16le", "s16")],
)
def test_file_that_was_cut_off_is_refused(tmp_path: Path, name: str, codec: str, sample_format: str) -> None:
    path = tmp_path / name
    signal = tones(2.0)
    write(path, [(signal * 32767).astype(np.int16) if sample_format == "s16" else signal], codec, sample_format)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert_refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_mp4_whose_index_stands_before_a_sound_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(tones(2.0), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    begin = content.index(b"mdat")
    assert content.index(b"moov") < begin
    decode(path)
    path.write_bytes(content[: begin + int(share * (len(content) - begin))])
    assert "cut off" in assert_refused(path)


@pytest.mark.parametrize("frames_kept", [0.25, 0.75])
def test_aiff_that_was_cut_off_between_two_samples_is_refused(tmp_path: Path, frames_kept: float) -> None:
    path = tmp_path / "song.aiff"
    soundfile.write(path, tones(1.0).T, RATE, subtype="PCM_16")
    content = path.read_bytes()
    assert decode(path)[0].shape == (2, RATE)
    path.write_bytes(content[: len(content) - 4 * round((1 - frames_kept) * RATE)])
    assert "cut off" in assert_refused(path)


def test_flac_that_was_cut_off_between_two_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    write(path, [(tones(1.0) * 32767).astype(np.int16)], "flac", "s16")
    assert decode(path)[0].shape == (2, RATE)
    with av.open(str(path)) as container:
        last = [packet.size for packet in container.demux(audio=0) if packet.size][-1]
    path.write_bytes(path.read_bytes()[:-last])
    assert "cut off" in assert_refused(path)


def test_samples_of_64_bit_integers_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s64le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int32), format="s32", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert "s64" in assert_refused(path)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no DTS encoder but that of the ffmpeg program")
def test_dts_in_the_samples_of_a_wav_file_is_decoded_not_heard_as_noise(tmp_path: Path) -> None:
    sound, coded, path = tmp_path / "sound.wav", tmp_path / "sound.dts", tmp_path / "song.wav"
    signal = tones(2.0)
    soundfile.write(sound, signal.T, RATE, subtype="PCM_16")
    command = ["ffmpeg", "-loglevel", "error", "-i", str(sound), "-c:a", "dca", "-strict", "-2", str(coded)]
    subprocess.run(command, check=True)
    # As on a DTS CD: a wav file of 16-bit stereo that holds the coded sound.
    soundfile.write(path, np.frombuffer(coded.read_bytes(), np.int16).reshape(-1, 2), RATE, subtype="PCM_16")
    decoded, rate = decode(path)
    assert rate == RATE
    assert abs(decoded.shape[1] - signal.shape[1]) < 2048
    spectrum = np.abs(np.fft.rfft(decoded[0][: signal.shape[1]]))
    true = np.abs(np.fft.rfft(signal[0]))
    assert abs(int(spectrum.argmax()) - int(true.argmax())) <= 1


def test_wav_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, np.zeros((0, 2), np.float32), RATE)
    assert_refused(path)


def test_video_without_sound_is_refused(tmp_path: Path) -> None:
    assert "0 audio streams" in assert_refused(write_film(tmp_path / "clip.mp4"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "song.wav"
    signal = tones(0.2)
    signal[1, 777] = value
    soundfile.write(path, signal.T, RATE, subtype="FLOAT")
    assert_refused(path)


def test_streams_of_different_rates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stems.mkv"
    with av.open(str(path), "w") as container:
        for rate in (44100, 48000):
            container.add_stream("pcm_s16le", rate=rate, layout="stereo")
        for stream in container.streams.audio:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2000), np.int16), format="s16", layout="stereo")
            frame.sample_rate = stream.rate or 0
            container.mux(stream.encode(frame))
        for stream in container.streams.audio:
            container.mux(stream.encode(None))
    assert "rate" in assert_refused(path, lambda: decode_streams(path, (0, 1)))
    assert decode_streams(path, (1,))[1] == 48000


# --- resampling and channels ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(44100, 11025), (44100, 8192), (48000, 11025), (8000, 44100), (22050, 44100)]
)
@pytest.mark.parametrize("hertz", [100.0, 1000.0, 2999.0])
def test_resampled_sine_is_the_same_sine_at_the_new_rate(from_rate: int, to_rate: int, hertz: float) -> None:
    def sine(rate: int) -> Waveform:
        phase = 2 * np.pi * hertz * np.arange(rate) / rate
        return np.stack([0.5 * np.sin(phase), 0.25 * np.cos(phase)]).astype(np.float32)

    before = sine(from_rate)
    resampled = resample(before, from_rate, to_rate)
    assert resampled.dtype == np.float32
    assert resampled.shape == (2, to_rate)
    # The filter rings at both ends, where the sine begins and stops at once.
    inside = slice(to_rate // 10, -to_rate // 10)
    np.testing.assert_allclose(resampled[:, inside], sine(to_rate)[:, inside], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("from_rate", "to_rate", "hertz"), [(44100, 11025, 6000.0), (44100, 8192, 4600.0)])
def test_tone_above_the_new_band_vanishes(from_rate: int, to_rate: int, hertz: float) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(from_rate) / from_rate).astype(np.float32)[None]
    resampled = resample(tone, from_rate, to_rate)[:, to_rate // 10 : -to_rate // 10]
    assert np.abs(resampled).max() < 1e-4


@settings(max_examples=50, deadline=None)
@given(
    samples=st.integers(1, 30_000),
    from_rate=st.sampled_from([8000, 22050, 44100, 48000]),
    to_rate=st.sampled_from([8000, 8192, 11025, 44100]),
)
def test_length_changes_by_the_ratio_of_the_rates(samples: int, from_rate: int, to_rate: int) -> None:
    resampled = resample(np.ones((1, samples), np.float32), from_rate, to_rate)
    assert abs(resampled.shape[1] - samples * to_rate / from_rate) < 1


def test_equal_rates_change_nothing() -> None:
    signal = tones(0.1)
    assert resample(signal, RATE, RATE) is signal


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=8),
    channels=st.integers(1, 2),
    from_rate=st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    to_rate=st.sampled_from([8192, 11025]),
)
def test_sound_resampled_in_blocks_of_any_sizes_is_that_resampled_whole(
    sizes: list[int], channels: int, from_rate: int, to_rate: int
) -> None:
    signal = np.random.default_rng(0).uniform(-1, 1, (channels, sum(sizes) + 1)).astype(np.float32)
    resampler = Resampler(channels, from_rate, to_rate)
    ends = np.cumsum(sizes).tolist()
    blocks = [resampler.process(signal[:, start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    blocks.append(resampler.process(signal[:, ends[-1] :], last=True))
    joined = np.concatenate(blocks, axis=1)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, resample(signal, from_rate, to_rate))


def test_channels_become_their_mean_or_stay() -> None:
    signal = tones(0.1)
    np.testing.assert_allclose(to_channels(signal, 1), (signal[:1] + signal[1:]) / 2, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(to_channels(signal, 2), signal)
    np.testing.assert_array_equal(to_channels(signal[:1], 2), signal[:1])
    with pytest.raises(UserError, match="3 channels"):
        to_channels(np.zeros((3, 10), np.float32), 2)


# --- what its libraries do wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 5, 6, 7, 8])
def test_vorbis_of_many_channels_comes_in_ffmpegs_order(tmp_path: Path, channels: int) -> None:
    # Vorbis has left, center, right first from three channels on, and the low-frequency channel last.
    order = {
        3: ("FL", "FC", "FR"),
        5: ("FL", "FC", "FR", "BL", "BR"),
        6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
        7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
        8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
    }[channels]
    ffmpegs = ("FL", "FR", "FC", "LFE", "BL", "BR", "BC", "SL", "SR")
    signal = tones(0.5, channels=channels, first=300.0)
    path = tmp_path / "a.ogg"
    soundfile.write(path, signal.T, RATE, format="OGG", subtype="VORBIS")
    decoded, _ = decode(path)
    assert decoded.shape == signal.shape
    for found, name in zip(decoded, [name for name in ffmpegs if name in order], strict=True):
        if name != "LFE":
            written = signal[order.index(name)]
            assert decibels(written, written - found) > 15


@pytest.mark.parametrize("channels", [8, 12])
def test_more_planes_than_a_frame_has_room_for_are_read(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.mka"
    signal = np.random.default_rng(0).uniform(-1, 1, (channels, 5000)).astype(np.float32)
    layout = f"{channels} channels"
    packed = av.AudioFrame.from_ndarray(signal.T.reshape(1, -1).copy(), format="flt", layout=layout)
    packed.sample_rate = RATE
    planar = av.AudioResampler(format="fltp").resample(packed)[0]
    buffer = _StreamBuffer(path)
    assert isinstance(planar, av.AudioFrame)
    buffer.add(planar)
    np.testing.assert_array_equal(buffer.take(), signal)


def test_number_of_channels_that_changes_within_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.aac"
    parts = []
    for channels in (2, 1):
        part = tmp_path / f"{channels}.aac"
        write(part, [tones(0.5, channels=channels)], "aac", container="adts")
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    assert "channels changes" in assert_refused(path)


def test_vorbis_songs_joined_to_one_file_are_all_read(tmp_path: Path) -> None:
    parts = []
    for number in range(2):
        part = tmp_path / f"{number}.ogg"
        soundfile.write(part, tones(0.5).T, RATE, format="OGG", subtype="VORBIS")
        parts.append(part.read_bytes())
    path = tmp_path / "joined.ogg"
    path.write_bytes(b"".join(parts))
    assert decode(path)[0].shape[1] > 1.9 * 0.5 * RATE


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (RATE, 1)])
def test_vorbis_songs_of_different_rates_or_channels_joined_are_one_line(
    tmp_path: Path, rate: int, channels: int
) -> None:
    path = tmp_path / "joined.ogg"
    content = b""
    for part_rate, part_channels in ((RATE, 2), (rate, channels)):
        signal = tones(0.5, part_rate, part_channels)
        soundfile.write(tmp_path / "part.ogg", signal.T, part_rate, format="OGG", subtype="VORBIS")
        content += (tmp_path / "part.ogg").read_bytes()
    path.write_bytes(content)
    message = assert_refused(path)
    assert "change" in message
    assert "patches" not in message
