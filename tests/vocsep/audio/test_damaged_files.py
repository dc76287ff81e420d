"""Files that are not what their headers say, and files that only seem so."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from av.audio.stream import AudioStream

from tests.helpers import one_line
from tests.vocsep.audio.audio_files import BARE_KINDS, WHOLE_KINDS, write_kind
from tests.vocsep.models.small_models import music
from vocsep.arrays import Waveform
from vocsep.audio.containers import ogg_pages
from vocsep.audio.damage import DamagedSound
from vocsep.audio.reading import decode, decode_blocks

RATE = 48000
SOUND = music(1, 2, RATE, 1.5)
SAMPLES = SOUND.shape[1]
WORDS = (SOUND * 32767).astype(np.int16)
LAME_DELAY = 1105
FRAME = 1152


def write_vorbis(path: Path) -> bytes:
    soundfile.write(path, SOUND.T, RATE, format="OGG", subtype="VORBIS")
    return path.read_bytes()


def what_there_is(path: Path) -> Waveform:
    return np.concatenate([block.waveforms[0] for block in decode_blocks(path, accept_damaged=True)], axis=1)


# Cut off


@pytest.mark.parametrize("kind", [*WHOLE_KINDS, "ogg"])
def test_file_that_was_cut_off_is_named_and_gives_what_there_is_when_asked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"song.{kind}"
    content = write_vorbis(path) if kind == "ogg" else write_kind(path, kind, SOUND, RATE)
    whole = decode(path)[0]
    assert what_there_is(path).shape == whole.shape
    for share in (0.4, 0.7, 0.95):
        path.write_bytes(content[: int(share * len(content))])
        one_line(lambda: decode(path), path)
        if kind in ("m4a", "mov"):
            continue  # their index was at the end
        with pytest.raises(DamagedSound):
            decode(path)
        if kind in ("tta", "opus") and share == 0.4:
            continue  # not yet one whole frame, or page
        part = what_there_is(path)
        assert 0 < part.shape[1] < whole.shape[1]
        # The end of a codec's last frame may depend on the next one.
        same = part[:, : part.shape[1] * 3 // 4]
        np.testing.assert_allclose(same, whole[:, : same.shape[1]], rtol=0, atol=1e-3)


def write_dsf(path: Path) -> bytes:
    bits = np.random.default_rng(1).bytes(2 * 4096 * 20)
    form = struct.pack("<4sQIIIIIIQII4x", b"fmt ", 52, 1, 0, 2, 2, 2_822_400, 1, len(bits) * 4, 4096, 0)[:52]
    data = struct.pack("<4sQ", b"data", len(bits) + 12) + bits
    path.write_bytes(struct.pack("<4sQQQ", b"DSD ", 28, 28 + len(form) + len(data), 0) + form + data)
    return path.read_bytes()


def write_dff(path: Path) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack(">Q", len(content)) + content + bytes(len(content) % 2)

    channels = chunk(b"CHNL", struct.pack(">H", 2) + b"SLFTSRGT")
    properties = b"SND " + chunk(b"FS  ", struct.pack(">I", 2_822_400)) + channels
    properties += chunk(b"CMPR", b"DSD \x0enot compressed")
    bits = np.random.default_rng(1).bytes(2 * 4096 * 20)
    body = b"DSD " + chunk(b"FVER", b"\1\5\0\0") + chunk(b"PROP", properties) + chunk(b"DSD ", bits)
    path.write_bytes(chunk(b"FRM8", body))
    return path.read_bytes()


@pytest.mark.parametrize("write", [write_dsf, write_dff])
def test_recording_of_single_bits_that_was_cut_off_is_named(tmp_path: Path, write: Callable[[Path], bytes]) -> None:
    path = tmp_path / f"song.{write.__name__[-3:]}"
    content = write(path)
    assert decode(path)[0].shape == (2, 4096 * 20)
    for share in (0.1, 0.5, 0.95, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        one_line(lambda: decode(path), path, "cut off")


def test_voice_file_that_was_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "song.voc"
    content = write_kind(path, "voc", SOUND, RATE)
    path.write_bytes(content[:27] + bytes(3) + content[30:])
    np.testing.assert_array_equal(what_there_is(path)[:, :SAMPLES], decode(path)[0][:, :SAMPLES])


def test_wav_of_more_than_4_gigabytes_by_its_newer_name_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    content = write_kind(path, "rf64", SOUND, RATE).replace(b"RF64", b"BW64")
    path.write_bytes(content)
    np.testing.assert_array_equal(decode(path)[0], WORDS / np.float32(32768))
    path.write_bytes(content[:-4000])
    one_line(lambda: decode(path), path, "cut off, 4000 of")


def test_big_endian_wav_that_would_be_decoded_as_noise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    soundfile.write(path, WORDS.T, RATE, endian="BIG")
    one_line(lambda: decode(path), path, "RIFX")


def ogg_with(content: bytes, number: int, change: str) -> bytes:
    """An Ogg file without its page `number`, or with one bit of it flipped."""
    starts = []
    place = content.find(b"OggS")
    while place >= 0:
        starts.append(place)
        place = content.find(b"OggS", place + 4)
    start, stop = starts[number : number + 2]
    if change == "missing":
        return content[:start] + content[stop:]
    return content[: stop - 9] + bytes([content[stop - 9] ^ 4]) + content[stop - 8 :]


@pytest.mark.parametrize("change", ["missing", "flipped"])
@pytest.mark.parametrize("kind", ["ogg", "oga"])
def test_ogg_that_lacks_a_page_in_its_middle_is_named(tmp_path: Path, kind: str, change: str) -> None:
    path = tmp_path / f"song.{kind}"
    content = write_vorbis(path) if kind == "ogg" else write_kind(path, kind, SOUND, RATE)
    with path.open("rb") as file:
        pages = list(ogg_pages(file, check=True))
    assert all(page.is_whole for page in pages)
    assert len(pages) > 5
    path.write_bytes(ogg_with(content, 4, change))
    assert "damaged" in one_line(lambda: decode(path), path)
    assert 0 < what_there_is(path).shape[1] < SAMPLES


def test_what_lies_behind_or_between_the_pages_of_an_ogg_file_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "song.ogg"
    content = write_vorbis(path)
    whole = decode(path)[0]
    path.write_bytes(content + b"TAG" + bytes(125))
    np.testing.assert_array_equal(decode(path)[0], whole)


# Wav files whose writer did not know their size


def wav_of_size(data: int | None, riff: int | None = None, seconds: float = 0.2) -> tuple[bytes, int]:
    """A wav file of 16-bit stereo whose chunk sizes are other ones, and how many samples it holds."""
    samples = WORDS[:, : round(seconds * RATE)].T.tobytes()
    riff = 36 + len(samples) if riff is None else riff
    data = len(samples) if data is None else data
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + layout + struct.pack("<4sI", b"data", data)
    return head + samples, len(samples) // 4


@pytest.mark.parametrize(
    ("data", "riff"),
    [
        (0x7FFFF000, 0x7FFFF024),  # SoX
        (0x80000000, 0x80000024),
        (0x7FFFFFFF, 0x7FFFFFFF),
        (0x7FFFFFFF - 36, 0x7FFFFFFF),
        (0x80000000 - 44, 0x80000000 - 8),
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
        (0xFFFFFFFF - 44, 0xFFFFFFFF - 8),
        (0xFFFFF000, 0xFFFFF024),
        (0x7F000000, 0x7F000024),
        (0, 0),
        (0, 36),
        (38_400 + 1, None),
        (38_400 + 8, 38_400 + 44),
        (38_400 + 36, 38_400 + 72),
        (38_400 + 44, 38_400 + 80),
        (0x12345678, None),
    ],
)
def test_size_that_cannot_be_true_is_no_cut(tmp_path: Path, data: int, riff: int | None) -> None:
    path = tmp_path / "pipe.wav"
    content, samples = wav_of_size(data, riff)
    path.write_bytes(content)
    np.testing.assert_array_equal(decode(path)[0], WORDS[:, :samples] / np.float32(32768))


@pytest.mark.parametrize("missing", [200, 4000, 30_000])
def test_size_that_can_be_true_is_a_cut(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "cut.wav"
    content, _ = wav_of_size(None)
    path.write_bytes(content[:-missing])
    one_line(lambda: decode(path), path, f"cut off, {missing} of 38400 bytes")


@pytest.mark.parametrize(
    ("kind", "name", "offset", "stand_ins"),
    [
        ("au", b".snd", 8, (b"\xff" * 4, struct.pack(">I", 4 * SAMPLES + 24))),
        ("caf", b"data", 4, (b"\xff" * 8,)),
        ("aiff", b"SSND", 4, (b"\x7f\x00\x00\x08", b"\xff" * 4, struct.pack(">I", 4 * SAMPLES + 8 + 46))),
        ("w64", b"data", 16, (struct.pack("<Q", 4 * SAMPLES + 24 + 104),)),
    ],
)
def test_size_that_other_formats_write_for_unknown_or_with_the_header_is_no_cut(
    tmp_path: Path, kind: str, name: bytes, offset: int, stand_ins: tuple[bytes, ...]
) -> None:
    path = tmp_path / f"pipe.{kind}"
    content = write_kind(path, kind, SOUND, RATE)
    place = content.index(name) + offset
    for stand_in in stand_ins:
        path.write_bytes(content[:place] + stand_in + content[place + len(stand_in) :])
        np.testing.assert_array_equal(decode(path)[0], WORDS / np.float32(32768))


class Pipe:
    """An output that cannot go back."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, content: bytes) -> int:
        self.content += bytes(content)
        return len(content)


@pytest.mark.parametrize(
    ("kind", "codec", "options"),
    [
        ("wav", "pcm_s16le", {}),
        ("wav", "pcm_s16le", {"rf64": "always"}),
        ("w64", "pcm_s16le", {}),
        ("aiff", "pcm_s16be", {}),
        ("au", "pcm_s16be", {}),
        ("caf", "pcm_s16be", {}),
    ],
)
def test_file_that_ffmpeg_wrote_to_a_pipe_is_whole_from_any_sample_on(
    tmp_path: Path, kind: str, codec: str, options: dict[str, str]
) -> None:
    pipe = Pipe()
    with av.open(pipe, "w", format=kind, options=options) as file:
        stream = file.add_stream(codec, rate=RATE, layout="stereo")
        assert isinstance(stream, AudioStream)
        frame = av.AudioFrame.from_ndarray(WORDS.T.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = RATE
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    path = tmp_path / f"pipe.{kind}"
    path.write_bytes(pipe.content)
    np.testing.assert_array_equal(decode(path)[0], WORDS / np.float32(32768))
    blocks = [block.waveforms[0] for block in decode_blocks(path, start=1000)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), WORDS[:, 1000:] / np.float32(32768))


# Mp3 files that every player plays


def lame(path: Path, samples: int = SAMPLES) -> bytes:
    """With LAME's header and nothing before or behind the frames."""
    soundfile.write(path, SOUND[:, :samples].T, RATE, format="MP3")
    return path.read_bytes()


def frames_of(samples: int) -> int:
    return -(-(samples + LAME_DELAY) // FRAME)


APE = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32, 0, 0)


@pytest.mark.parametrize(
    "junk",
    [
        b"TAG" + b"x" * 125,
        APE,
        b"ID3\x04\x00\x00\x00\x00\x00\x0aTIT2\x00\x00\x00\x00\x00\x00",
        b"LYRICSBEGININD0000200LYRICS200",
        b"\x00",
        bytes(417),
        b"some text ",
        np.random.default_rng(0).bytes(500),
    ],
    ids=["id3v1", "ape", "id3v2", "lyrics", "a zero", "zeros", "text", "random"],
)
@pytest.mark.parametrize("much", [False, True])
def test_what_lies_behind_the_last_frame_of_an_mp3_file_is_passed_over(tmp_path: Path, junk: bytes, much: bool) -> None:
    path = tmp_path / "song.mp3"
    content = lame(path)
    whole = decode(path)[0]
    assert whole.shape == (2, SAMPLES)
    path.write_bytes(content + (junk * (20_000 // len(junk)) if much else junk))
    decoded = decode(path)[0]
    # Where the file is much longer than its header says, FFmpeg leaves the encoder's padding at the end.
    assert decoded.shape[1] in (SAMPLES, frames_of(SAMPLES) * FRAME - LAME_DELAY)
    np.testing.assert_array_equal(decoded[:, :SAMPLES], whole)


def test_joined_mp3_files_are_played_one_after_the_other(tmp_path: Path) -> None:
    first, second = lame(tmp_path / "1.mp3"), lame(tmp_path / "2.mp3", SAMPLES // 3)
    path = tmp_path / "joined.mp3"
    for tag in (b"", b"TAG" + b"x" * 125, APE):
        path.write_bytes(first + tag + second)
        # The header of the second is a frame of silence, if it comes straight after a frame.
        frames = frames_of(SAMPLES) + (not tag) + frames_of(SAMPLES // 3)
        assert decode(path)[0].shape == (2, frames * FRAME - LAME_DELAY)


@pytest.mark.parametrize("change", ["inserted", "overwritten", "zeros", "before"])
def test_junk_within_an_mp3_file_costs_the_frames_that_it_hits(tmp_path: Path, change: str) -> None:
    path = tmp_path / "song.mp3"
    content = lame(path)
    junk = bytes(900) if change == "zeros" else np.random.default_rng(1).bytes(900)
    middle = len(content) // 2
    path.write_bytes(
        {
            "inserted": content[:middle] + junk + content[middle:],
            "overwritten": content[:middle] + junk + content[middle + 900 :],
            "zeros": content[:middle] + junk + content[middle + 900 :],
            "before": junk + content,
        }[change]
    )
    assert SAMPLES - 6 * FRAME <= decode(path)[0].shape[1] <= SAMPLES + 3 * FRAME


@pytest.mark.parametrize("kind", BARE_KINDS)
def test_what_lies_behind_frames_of_other_codecs_is_passed_over_too(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"song.{kind}"
    content = write_kind(path, kind, SOUND, RATE)
    whole = decode(path)[0]
    for junk in (b"TAG" + b"x" * 125, bytes(3000), b"some text " * 99):
        path.write_bytes(content + junk)
        assert abs(decode(path)[0].shape[1] - whole.shape[1]) <= 2048


def test_noise_that_begins_and_ends_like_a_song_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    content = lame(path, 9000)
    path.write_bytes(content[:900] + np.random.default_rng(2).bytes(500_000) + content[900:])
    one_line(lambda: decode(path), path, "most of it")
