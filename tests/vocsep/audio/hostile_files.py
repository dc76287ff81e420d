"""Files that strangers make: playlists, names that are addresses, and tags without end."""

import struct
import zlib
from pathlib import Path

from vocsep.audio.containers import ogg_checksum


def addresses(port: int) -> tuple[str, ...]:
    """Names of files that FFmpeg, or libsndfile, takes for something else; `port` is one of this machine."""
    return (
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
    )


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


def with_tags(kind: str, content: bytes, count: int, text: bytes = b"v") -> bytes:
    """A sound file with this many additional tags."""
    return {
        "mp3": _with_id3_frames,
        "flac": _with_vorbis_comments,
        "m4a": _with_item_boxes,
        "mkv": _with_simple_tags,
        "wav": _with_info_chunks,
        "aiff": _with_id3_chunk,
        "ape.mp3": _with_ape_items,
        "w64": _with_w64_texts,
        "flv": _with_flv_properties,
        "oga": _with_ogg_flac_comments,
    }[kind](content, [b"k%d" % number for number in range(count)], text)


def _id3_frames(names: list[bytes], text: bytes, before: bytes = b"") -> bytes:
    return b"".join(
        before + b"TXXX" + struct.pack(">IH", len(name) + len(text) + 2, 0) + b"\0" + name + b"\0" + text
        for name in names
    )


def _id3_tag(frames: bytes, version: int = 3, flags: int = 0) -> bytes:
    return b"ID3" + bytes([version, 0, flags]) + _id3_size(len(frames)) + frames


def _id3_size(size: int) -> bytes:
    return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


def _id3(names: list[bytes], text: bytes) -> bytes:
    return _id3_tag(_id3_frames(names, text))


def _with_id3_frames(content: bytes, names: list[bytes], text: bytes) -> bytes:
    return _id3(names, text) + content


def _with_id3_chunk(content: bytes, names: list[bytes], text: bytes) -> bytes:
    tag = _id3(names, text)
    return content[:12] + b"ID3 " + struct.pack(">I", len(tag)) + tag + bytes(len(tag) % 2) + content[12:]


def _with_vorbis_comments(content: bytes, names: list[bytes], text: bytes) -> bytes:
    place, is_last = 4, False
    while not is_last:
        is_last, place = bool(content[place] & 128), place + 4 + int.from_bytes(content[place + 1 : place + 4], "big")
    comments = [name + b"=" + text for name in names]
    block = struct.pack("<II", 0, len(comments)) + b"".join(struct.pack("<I", len(one)) + one for one in comments)
    head = b"\x84" + len(block).to_bytes(3, "big")
    return b"fLaC\0" + content[5:42] + head + block + content[place:]


def _with_ape_items(content: bytes, names: list[bytes], text: bytes) -> bytes:
    items = b"".join(struct.pack("<II", len(text), 0) + name + b"\0" + text for name in names)
    return content + items + b"APETAGEX" + struct.pack("<IIII8x", 2000, len(items) + 32, len(names), 0)


def _with_info_chunks(content: bytes, names: list[bytes], text: bytes) -> bytes:
    chunks = b"".join(
        b"%04x" % number + struct.pack("<I", len(text)) + text + bytes(len(text) % 2) for number in range(len(names))
    )
    return content[:12] + b"LIST" + struct.pack("<I", 4 + len(chunks)) + b"INFO" + chunks + content[12:]


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def _with_item_boxes(content: bytes, names: list[bytes], text: bytes) -> bytes:
    items = b"".join(
        _box(
            b"----",
            _box(b"mean", bytes(4) + b"com")
            + _box(b"name", bytes(4) + name)
            + _box(b"data", struct.pack(">II", 1, 0) + text),
        )
        for name in names
    )
    handler = _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = _box(b"udta", _box(b"meta", bytes(4) + handler + _box(b"ilst", items)))
    place = content.index(b"moov") - 4
    stop = place + int.from_bytes(content[place : place + 4], "big")
    return content[:place] + _box(b"moov", content[place + 8 : stop] + tags) + content[stop:]


def _element(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">Q", len(content) | 1 << 56) + content


def _with_simple_tags(content: bytes, names: list[bytes], text: bytes) -> bytes:
    tags = b"".join(_element(b"\x67\xc8", _element(b"\x45\xa3", name) + _element(b"\x44\x87", text)) for name in names)
    place = content.index(b"\x18\x53\x80\x67")
    everything = _element(b"\x12\x54\xc3\x67", _element(b"\x73\x73", _element(b"\x63\xc0", b"") + tags))
    return content[: place + 4] + b"\x01" + b"\xff" * 7 + everything + content[place + 12 :]


def _with_w64_texts(content: bytes, names: list[bytes], text: bytes) -> bytes:
    texts = b"".join(b"%04x" % number + struct.pack("<I", 2) + b"v\0" for number in range(len(names)))
    guid = bytes.fromhex("bc945f925a52d21186dc00c04f8edb8a")
    chunk = guid + struct.pack("<QI", 28 + len(texts), len(names)) + texts
    return content[:40] + chunk + bytes(-len(chunk) % 8) + content[40:]


def _with_flv_properties(content: bytes, names: list[bytes], text: bytes) -> bytes:
    def string(value: bytes) -> bytes:
        return struct.pack(">H", len(value)) + value

    properties = b"".join(string(name) + b"\x02" + string(text) for name in names)
    script = b"\x02" + string(b"onMetaData") + b"\x08" + struct.pack(">I", len(names)) + properties + b"\0\0\x09"
    tag = b"\x12" + len(script).to_bytes(3, "big") + bytes(7) + script
    return content[:13] + tag + struct.pack(">I", len(tag)) + content[13:]


def _with_ogg_flac_comments(content: bytes, names: list[bytes], text: bytes) -> bytes:
    """In the third packet: the second is padding."""
    comments = [name + b"=" + text for name in names]
    block = struct.pack("<II", 0, len(comments)) + b"".join(struct.pack("<I", len(one)) + one for one in comments)
    pages = [_ogg_page(content[14:18], b"\x01\0\0\x04" + bytes(4), 0)]
    packet = b"\x04" + len(block).to_bytes(3, "big") + block
    # Whole pages, which the next one continues, and the rest.
    for start in range(0, len(packet), 255 * 255):
        pages.append(_ogg_page(content[14:18], packet[start : start + 255 * 255], int(start > 0)))
    found = _ogg_pages(content)
    return _renumbered([found[0], *pages, *found[2:]])


def _ogg_page(serial: bytes, piece: bytes, flags: int) -> bytes:
    """A page of headers that holds a piece of a packet; one of 255 * 255 bytes continues on the next page."""
    sizes = [255] * (len(piece) // 255) + ([] if len(piece) == 255 * 255 else [len(piece) % 255])
    granule = -1 if len(sizes) == 255 and sizes[-1] == 255 else 0
    return b"OggS\0" + struct.pack("<Bq", flags, granule) + serial + bytes(8) + bytes([len(sizes), *sizes]) + piece


def _numbered(page: bytes, number: int) -> bytes:
    page = page[:18] + struct.pack("<I", number) + bytes(4) + page[26:]
    return page[:22] + struct.pack("<I", ogg_checksum(page)) + page[26:]


def with_hidden_tags(kind: str, content: bytes, count: int) -> bytes:
    """A sound file with so many tags in a place where FFmpeg finds them, though few others would look there."""
    names = [b"k%d" % number for number in range(count)]
    chapter = b"c\0" + struct.pack(">4I", 0, 1000, 0, 0) + _id3_frames(names, b"v")
    compressed = struct.pack(">I", len(chapter)) + zlib.compress(chapter)
    if kind in _HIDDEN_ID3:
        return {
            "chapter.mp3": _id3_tag(b"CHAP" + struct.pack(">IH", len(chapter), 0) + chapter),
            "compressed.mp3": _id3_tag(b"CHAP" + _id3_size(len(compressed)) + b"\0\x09" + compressed, version=4),
            "sizes.mp3": _id3_tag(_id3_frames(names, b"v" * 250), version=4),
            "extended.mp3": _id3_tag(struct.pack(">I", 0x8000) + _id3_frames(names, b"v"), flags=0x40),
            "padded.mp3": _id3_tag(_id3_frames(names, b"v", before=bytes(10))),
            "chapter.flac": _id3_tag(b"CHAP" + struct.pack(">IH", len(chapter), 0) + chapter),
        }[kind] + content
    if kind == "middle.aac":
        half = content.index(content[:2], len(content) // 2)  # a frame begins as the first does
        return content[:half] + _id3(names, b"v") + content[half:]
    if kind == "behind.rf64":
        chunks = _with_info_chunks(bytes(12), names, b"v")[12:]
        place = content.index(b"data", 60) + 4
        return content[:place] + b"\xff" * 4 + content[place + 4 :] + chunks
    if kind.endswith(".m4a"):
        return _with_hidden_boxes(kind, content, names)
    if kind.endswith(".mkv"):
        return _with_hidden_elements(kind, content, names)
    comments = [name + b"=v" for name in names]
    block = struct.pack("<II", 0, len(comments)) + b"".join(struct.pack("<I", len(one)) + one for one in comments)
    packets = [b"\x01\0\0\x04" + bytes(4), b"\x04" + len(block).to_bytes(3, "big") + block]
    pages = _ogg_pages(content)
    return _renumbered([pages[0], *_packets_as_pages(content[14:18], packets), *pages[2:]])


_HIDDEN_ID3 = ("chapter.mp3", "compressed.mp3", "sizes.mp3", "extended.mp3", "padded.mp3", "chapter.flac")
HIDDEN_TAGS = (
    *_HIDDEN_ID3,
    *("middle.aac", "behind.rf64", "fragments.m4a", "late.m4a", "nonsense.mkv", "index.mkv", "together.oga"),
)
"""Kinds of files with tags in odd places, for `with_hidden_tags`."""


def _with_hidden_boxes(kind: str, content: bytes, names: list[bytes]) -> bytes:
    everything = _with_item_boxes(_box(b"moov", b""), names, b"v")[8:]
    tags = everything[everything.index(b"meta") - 4 :]
    if kind == "late.m4a":  # words of nonsense before the first box
        return content + _box(b"udta", _box(b"meta", bytes(12) + tags[12:]))
    return content + _box(b"moof", _box(b"traf", _box(b"udta", tags)))


def _with_hidden_elements(kind: str, content: bytes, names: list[bytes]) -> bytes:
    place = content.index(b"\x18\x53\x80\x67")
    start, rest = content[: place + 4] + b"\x01" + b"\xff" * 7, content[place + 12 :]
    whole = _with_simple_tags(b"\x18\x53\x80\x67" + bytes(8), names, b"v")
    tags = whole[12:]
    if kind == "nonsense.mkv":
        return start + bytes(5) + tags + rest
    hidden = _element(b"\xec", tags)  # which says that it is room for later

    def index(position: int) -> bytes:
        seek = _element(b"\x53\xab", b"\x12\x54\xc3\x67") + _element(b"\x53\xac", struct.pack(">Q", position))
        return _element(b"\x11\x4d\x9b\x74", _element(b"\x4d\xbb", seek))

    return start + index(len(index(0)) + 9) + hidden + rest


def _ogg_pages(content: bytes) -> list[bytes]:
    pages = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(content[:size])
        content = content[size:]
    return pages


def _packets_as_pages(serial: bytes, packets: list[bytes]) -> list[bytes]:
    """Pages that are as full as can be, so that packets begin in the middle of one."""
    content = b"".join(packets)
    sizes = [size for packet in packets for size in [255] * (len(packet) // 255) + [len(packet) % 255]]
    pages, continues = [], 0
    for start in range(0, len(sizes), 255):
        some = sizes[start : start + 255]
        piece, content = content[: sum(some)], content[sum(some) :]
        granule = 0 if some[-1] < 255 else -1
        head = b"OggS\0" + struct.pack("<Bq", continues, granule) + serial + bytes(8)
        pages.append(head + bytes([len(some), *some]) + piece)
        continues = int(some[-1] == 255)
    return pages


def _renumbered(pages: list[bytes]) -> bytes:
    return b"".join(_numbered(page, number) for number, page in enumerate(pages))
