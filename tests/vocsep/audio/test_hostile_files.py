"""Files whose names or contents would have a library open something else, or work without end."""

import contextlib
import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import one_line
from tests.vocsep.audio.audio_files import TAGS, cover_of, tags_of, write_kind, write_song
from tests.vocsep.audio.hostile_files import HIDDEN_TAGS, addresses, playlists, with_hidden_tags, with_tags
from tests.vocsep.models.small_models import music
from vocsep.audio.reading import audio_info, decode
from vocsep.audio.writing import AudioWriter

RATE = 22050
SOUND = music(1, 2, RATE, 0.3)


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and who called there meanwhile."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, address = server.accept()
                    calls.append(address)
                    connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], calls


@pytest.mark.parametrize("kind", ["mp3", "ogg"])
def test_names_that_are_addresses_or_protocols_are_those_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    song = write_song(tmp_path / f"song.{kind}", SOUND, RATE, tags=TAGS, cover=kind == "mp3")
    expected, cover = decode(song)[0], cover_of(song)
    monkeypatch.chdir(tmp_path)
    with listening() as (port, calls):
        for name in (*addresses(port), "-", os.fsdecode(b"caf\xe9: song")):
            path = Path(name if name == "-" else f"{name}.{kind}")
            path.write_bytes(song.read_bytes())
            np.testing.assert_array_equal(decode(path)[0], expected)
            info = audio_info(path)
            with AudioWriter(Path("out", path), "flac" if kind == "ogg" else kind, info) as writer:  # type: ignore[arg-type]
                writer.write(SOUND)
            with AudioWriter(Path(f"{path} vocals.ogg"), "ogg", info) as writer:
                writer.write(SOUND)
            written = tmp_path / "out" / path
            assert cover_of(written) == cover
            assert tags_of(written).get("artist") == (None if kind == "ogg" else TAGS["artist"])
            path.unlink()
        assert calls == []


def test_files_that_name_other_files_are_no_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write_song(tmp_path / "other.mp3", SOUND, RATE)
    monkeypatch.chdir(tmp_path)
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for suffix, text in playlists(other).items():
        for path in (Path(f"itself.{suffix}"), tmp_path / f"{suffix}.mp3", tmp_path / f"{suffix}.wav"):
            path.write_text(text, encoding="latin-1")
            one_line(lambda path=path: decode(path), path)  # type: ignore[misc]
            one_line(lambda path=path: audio_info(path), path)  # type: ignore[misc]
            path.unlink()
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


def test_pictures_of_a_numbered_series_are_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "picture%03d.png"
    write_song(tmp_path / "song.mp3", SOUND, RATE, cover=True)
    path.write_bytes(cover_of(tmp_path / "song.mp3") or b"")
    (tmp_path / "picture001.png").write_bytes(path.read_bytes())
    one_line(lambda: decode(path), path, "cannot be read as audio")


# Tags


@pytest.mark.parametrize("kind", ["mp3", "flac", "m4a", "mkv", "wav", "aiff", "ape.mp3", "w64", "flv", "oga"])
def test_tags_without_end_are_refused_and_many_are_read(tmp_path: Path, kind: str) -> None:
    if kind in ("w64", "flv", "oga"):
        content = write_kind(tmp_path / f"song.{kind}", kind, SOUND, RATE)
    else:
        content = write_song(tmp_path / f"song.{kind.rpartition('.')[2]}", SOUND, RATE).read_bytes()
    path = tmp_path / f"tags.{kind}"
    path.write_bytes(with_tags(kind, content, 900))
    assert len(audio_info(path).tags) >= (1 if kind == "ape.mp3" else 900)  # these FFmpeg reads elsewhere
    assert decode(path)[0].shape[1] >= SOUND.shape[1]
    # Enough for FFmpeg alone to take hours.
    path.write_bytes(with_tags(kind, content, 200_000 if kind == "mp3" else 60_000))
    for action in (audio_info, decode):
        one_line(lambda action=action: action(path), path, "tags")  # type: ignore[misc]


@pytest.mark.parametrize("kind", HIDDEN_TAGS)
def test_tags_are_counted_wherever_ffmpeg_finds_them(tmp_path: Path, kind: str) -> None:
    form = kind.rpartition(".")[2]
    write = write_kind if form in ("aac", "rf64", "oga") else None
    song = tmp_path / f"song.{form}"
    content = write(song, form, SOUND, RATE) if write else write_song(song, SOUND, RATE).read_bytes()
    path = tmp_path / kind
    path.write_bytes(with_hidden_tags(kind, content, 300))
    if kind != "compressed.mp3":
        # Not before the end in the middle of AAC; of chapters, PyAV gives none but the file's own.
        tags = len(audio_info(path).tags)
        assert tags >= 300 or kind in ("middle.aac", "chapter.mp3", "chapter.flac")
        assert decode(path)[0].shape[1] >= SOUND.shape[1]
    path.write_bytes(with_hidden_tags(kind, content, 60_000))
    for action in (audio_info, decode):
        one_line(lambda action=action: action(path), path, "tags")  # type: ignore[misc]


def test_what_looks_like_a_tag_in_the_middle_of_sound_is_none(tmp_path: Path) -> None:
    path = write_song(tmp_path / "song.mp3", SOUND, RATE)
    random = np.random.default_rng(0)
    # As often as in thousands of songs.
    noise = b"".join(b"ID3" + random.bytes(40) for _ in range(20_000))
    path.write_bytes(path.read_bytes() + noise)
    assert audio_info(path).channels == 2


def test_small_tag_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    content = write_song(tmp_path / "song.mp3", SOUND, RATE).read_bytes()
    path = tmp_path / "tags.mp3"
    packed = b"\x0f\xff\xff\xff" + zlib.compress(bytes(1 << 20))
    frame = b"APIC" + bytes(len(packed) >> shift & 127 for shift in (21, 14, 7, 0)) + b"\0\x09" + packed
    path.write_bytes(b"ID3\x04\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame + content)
    one_line(lambda: audio_info(path), path, "too large")


@pytest.mark.parametrize("kind", ["mp3", "flac", "m4a", "mkv"])
def test_tags_as_long_as_books_are_not_copied(tmp_path: Path, kind: str) -> None:
    content = write_song(tmp_path / f"song.{kind}", SOUND, RATE, tags=TAGS).read_bytes()
    path = tmp_path / f"tags.{kind}"
    path.write_bytes(with_tags(kind, content, 3, b"la" * 200_000))
    info = audio_info(path)
    assert sum(map(len, info.tags.values())) < 10_000
    assert kind == "flac" or info.tags["title"] == TAGS["title"]
    path.write_bytes(with_tags(kind, content, 300, b"la" * 10_000))
    assert sum(map(len, audio_info(path).tags.values())) < 1_100_000


def test_tag_of_40_megabytes_is_refused(tmp_path: Path) -> None:
    content = write_song(tmp_path / "song.mp3", SOUND, RATE).read_bytes()
    path = tmp_path / "tags.mp3"
    path.write_bytes(with_tags("mp3", content, 1, bytes(40_000_000)))
    one_line(lambda: audio_info(path), path, "too large")


def test_boxes_within_boxes_without_end_are_one_line(tmp_path: Path) -> None:
    content = write_song(tmp_path / "song.m4a", SOUND, RATE).read_bytes()
    path = tmp_path / "nested.m4a"
    boxes = b""
    for number in range(20_000, 0, -1):
        boxes += struct.pack(">I", 8 * number) + b"udta"
    place = content.index(b"moov") - 4
    path.write_bytes(content[:place] + boxes)
    one_line(lambda: audio_info(path), path)
