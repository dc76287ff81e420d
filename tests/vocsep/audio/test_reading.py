"""Sound files: samples, streams and blocks."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream

from tests.helpers import decibels
from tests.vocsep.audio.tones import RATE, assert_refused, decode_streams, five_streams, tones, write
from vocsep.audio.formats import AUDIO_SUFFIXES
from vocsep.audio.reading import BLOCK_SAMPLES, _StreamBuffer, decode, decode_blocks


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


def test_vorbis_songs_joined_to_one_file_are_all_read(tmp_path: Path) -> None:
    parts = []
    for number in range(2):
        part = tmp_path / f"{number}.ogg"
        soundfile.write(part, tones(0.5).T, RATE, format="OGG", subtype="VORBIS")
        parts.append(part.read_bytes())
    path = tmp_path / "joined.ogg"
    path.write_bytes(b"".join(parts))
    assert decode(path)[0].shape[1] > 1.9 * 0.5 * RATE
