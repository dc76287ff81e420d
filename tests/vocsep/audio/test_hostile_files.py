"""Files whose names or contents would have a library open something else, or work without end."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import one_line
from tests.vocsep.audio.audio_files import TAGS, cover_of, tags_of, write_song
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
        for name in (
            f"http:127.0.0.1:{port}?x",
            f"tcp:127.0.0.1:{port}?listen=1",
            f"udp:127.0.0.1:{port}",
            "Artist: Song",
            "12:30",
            "file:song",
            "pipe:0",
            "concat:song|song",
            "subfile,,start,0,end,9,,:song",
            "data:audio;base64,AAAA",
            "lavfi:sine",
            "song%03d",
            "-",
            os.fsdecode(b"caf\xe9: song"),
        ):
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


def playlists(other: Path) -> dict[str, str]:
    """Files of text that name another one, in every form that FFmpeg follows."""
    name, folder = other.name, other.parent
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n",
        "m3u": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{other}\n#EXT-X-ENDLIST\n",
        "mp3": f"ffconcat version 1.0\nfile {name}\n",
        "wav": f"ffconcat version 1.0\nfile '{name}'\nfile '{name}'\n",
        "flac": "ffconcat version 1.0\nfile itself.flac\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet '
        f'mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{other}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "pls": f"[playlist]\nFile1={other}\nNumberOfEntries=1\nVersion=2\n",
        "xspf": f'<playlist version="1"><trackList><track><location>{other}</location></track></trackList></playlist>',
        "cue": f'FILE "{name}" MP3\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "asx": f'<asx version="3.0"><entry><ref href="{folder}/{name}"/></entry></asx>',
        "wma": f"[Reference]\nRef1=http://127.0.0.1/{name}\n",
        "webm": '<?xml version="1.0"?><SmoothStreamingMedia/>',
        "png": "\x89PNG\r\n",
        "srt": "1\n00:00:00,000 --> 00:00:01,000\nla la\n",
        "txt": ";FFMETADATA1\ntitle=x\n",
    }


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
