"""Files that are no sound, damaged, cut off or not finite."""

import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from tests.vocsep.audio.audio_files import write_film
from tests.vocsep.audio.tones import RATE, assert_refused, decode_streams, five_streams, tones, write
from vocsep.audio.reading import BLOCK_SAMPLES, decode, decode_blocks


def test_nan_in_a_late_block_is_refused_after_the_blocks_before_it(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    signal = np.zeros((2, 3 * BLOCK_SAMPLES), np.float32)
    signal[1, -1] = np.nan
    soundfile.write(path, signal.T, RATE, subtype="FLOAT")
    blocks = decode_blocks(path)
    assert [next(blocks).waveforms[0].shape for _ in range(2)] == [(2, BLOCK_SAMPLES)] * 2
    assert_refused(path, lambda: next(blocks))


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


def test_number_of_channels_that_changes_within_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.aac"
    parts = []
    for channels in (2, 1):
        part = tmp_path / f"{channels}.aac"
        write(part, [tones(0.5, channels=channels)], "aac", container="adts")
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    assert "channels changes" in assert_refused(path)


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
