"""Files that are damaged, hold several tracks or garbage, or are no files."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream

from storage.errors import UserError
from tests.vocsep.models.small_models import music
from tests.vocsep.separation.separated_files import STEMS, refused, separated, write_wav
from vocsep.arrays import Waveform
from vocsep.audio.reading import decode
from vocsep.separation.outputs import inputs_to_separate
from vocsep.separation.separator import Separator

RATE = 22050
SOUND = music(2, 2, RATE, 0.8)


def test_song_that_was_cut_off_is_named_with_the_option_that_separates_what_there_is(
    separator: Separator, tmp_path: Path
) -> None:
    path = tmp_path / "song.ogg"
    song = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3 * RATE)).astype(np.float32)
    soundfile.write(path, song.T, RATE, format="OGG", subtype="VORBIS")
    whole, content = decode(path)[0], path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    message = refused(path, tmp_path / "out", separator)
    assert str(path) in message
    assert "cut off" in message
    assert "--accept-damaged" in message
    result, stems = separated(path, tmp_path / "out", separator, accept_damaged=True)
    length = stems["vocals"].shape[1]
    assert 0.3 * song.shape[1] < length < song.shape[1]
    assert result.seconds == pytest.approx(length / RATE)
    total = stems["vocals"] + stems["accompaniment"]
    np.testing.assert_allclose(total[:, : length // 2], whole[:, : length // 2], rtol=0, atol=1e-3)


def write_tracks(path: Path, signals: list[Waveform], default: int) -> Path:
    """A film's sound in several languages, of which one is the default."""
    with av.open(str(path), "w") as file:
        streams = []
        for number, signal in enumerate(signals):
            stream = file.add_stream("pcm_s16le", rate=RATE, layout={1: "mono", 2: "stereo"}[len(signal)])
            assert isinstance(stream, AudioStream)
            flag = av.stream.Disposition.default
            stream.disposition = flag if number == default else av.stream.Disposition(0)
            streams.append(stream)
        for stream, signal in zip(streams, signals, strict=True):
            samples = (signal * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout=stream.layout.name)
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("default", [0, 1])
def test_default_track_of_several_is_taken_or_the_one_that_is_asked_for(
    separator: Separator, tmp_path: Path, default: int
) -> None:
    signals = [SOUND, music(5, 1, RATE, 0.5)]
    path = write_tracks(tmp_path / "film.mkv", signals, default)
    for name, track, expected in (("default", None, default), ("1", 1, 0), ("2", 2, 1)):
        _, stems = separated(path, tmp_path / name, separator, audio_track=track)
        total = stems["vocals"] + stems["accompaniment"]
        np.testing.assert_allclose(total, signals[expected], rtol=0, atol=2.0**-14)
    np.testing.assert_allclose(decode(path)[0], signals[default], rtol=0, atol=2.0**-14)
    assert "2 audio tracks" in refused(path, tmp_path / "3", separator, audio_track=3)


@pytest.mark.parametrize("value", [3e38, -3e38, 1e37, 1e12])
@pytest.mark.parametrize("clip", ["none", "rescale"])
def test_one_sample_of_garbage_is_named_and_nothing_is_written(
    separator: Separator, tmp_path: Path, value: float, clip: str
) -> None:
    waveform = SOUND.copy()
    waveform[1, -7] = value
    path = write_wav(tmp_path / "song.wav", waveform, RATE)
    message = refused(path, tmp_path / "out", separator, clip=clip)
    assert str(path) in message
    assert "no sound" in message


def test_whole_song_of_garbage_and_garbage_of_64_bits_are_named(separator: Separator, tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    for scale, subtype in ((1e37, "FLOAT"), (1e300, "DOUBLE")):
        soundfile.write(path, SOUND.T.astype(np.float64) * scale, RATE, subtype=subtype)
        assert str(path) in refused(path, tmp_path / "out", separator)


@pytest.mark.parametrize("scale", [100.0, 32768.0, 2.0**31])
def test_song_in_units_of_integers_is_separated(separator: Separator, tmp_path: Path, scale: float) -> None:
    path = write_wav(tmp_path / "song.wav", SOUND * np.float32(scale), RATE)
    _, stems = separated(path, tmp_path / "out", separator)
    total = stems["vocals"] + stems["accompaniment"]
    np.testing.assert_allclose(total / scale, SOUND, rtol=0, atol=1e-5)
    assert all(np.isfinite(stems[stem]).all() for stem in STEMS)


def test_pipe_and_device_are_one_line_and_are_not_waited_for(separator: Separator, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    ends = os.pipe()
    # What a shell's `<(...)` hands over.
    for path in (pipe, Path(f"/dev/fd/{ends[0]}"), Path("/dev/zero")):
        message = refused(path, tmp_path / "out", separator)
        assert str(path) in message
        assert "pipe or device" in message
    for end in ends:
        os.close(end)
    with pytest.raises(UserError, match="standard input"):
        inputs_to_separate([Path("-")], tmp_path / "out")
