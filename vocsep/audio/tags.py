"""How many tags and chapters a file has: FFmpeg's time for them grows with the square of their number."""

import itertools
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from storage.errors import UserError
from vocsep.audio.containers import (
    MOST_PIECES,
    MP4_STARTS,
    UNKNOWN,
    Head,
    Piece,
    aiff_head,
    box_head,
    caf_head,
    chunk_head,
    element_head,
    flv_head,
    nested,
    object_head,
    ogg_pages,
    pieces,
    real_head,
)

MOST_TAGS = 2000
"""With pictures and chapters, in any place of a file."""
_MOST_BYTES = 1 << 25  # of each
_MOST_META = 1 << 20
_MOST_TEXT = 1 << 16
_MOST_TEXT_IN_ALL = 1 << 20

# SimpleTag, ChapterAtom, AttachedFile; and what contains them: Segment, Tags, Tag, Chapters, EditionEntry, Attachments.
_MATROSKA_COUNTED = (b"\x67\xc8", b"\xb6", b"\x61\xa7")
_MATROSKA = (
    *(b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67", b"\x73\x73", b"\x10\x43\xa7\x70", b"\x45\xb9", b"\x19\x41\xa4\x69"),
    *_MATROSKA_COUNTED[:2],
)
# FFmpeg looks for the first three wherever it meets nonsense before the sound, and goes where an index points.
_MATROSKA_SOUGHT = re.compile(rb"\x12\x54\xc3\x67|\x10\x43\xa7\x70|\x19\x41\xa4\x69|\x53\xac[\x81-\x88]")
_MATROSKA_SEGMENT, _MATROSKA_CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
# How the first packet of an Ogg stream begins, and those of comments; how many bytes precede these, and which is last.
_OGG_COMMENTS = {
    b"\x01": ((b"\x03",), 7, MOST_PIECES),  # Vorbis and OGM
    b"OpusHead": ((b"OpusTags",), 8, MOST_PIECES),
    b"\x7fFLAC": ((b"\x04", b"\x84"), 4, MOST_PIECES),
    b"\x80theora": ((b"\x81",), 7, MOST_PIECES),
    b"OVP80": ((b"OVP80\x02",), 7, MOST_PIECES),
    b"CELT    ": ((b"",), 0, MOST_PIECES),
    b"Speex   ": ((b"",), 0, 1),
}
# Boxes of MP4 and QuickTime that FFmpeg looks into, wherever they are.
_BOXES = (
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts", b"gmhd", b"mvex", b"moof", b"traf", b"sinf"),
    *(b"schi", b"tref", b"wave", b"clip", b"iprp", b"ipco", b"udta", b"ilst"),
)
# How MXF files begin, if not with up to 64 kB of something else, and sets in them: some hundred, at times repeated.
_MXF_START = bytes.fromhex("060e2b34020501010d0102010102")
_MXF_SET = re.compile(rb"\x06\x0e\x2b\x34\x02[\x13\x53]\x01.\x0d\x01\x01\x01\x01", re.DOTALL)
_MXF_SETS = 10
_ID3_COMPRESSED = 8
_ID3_COMPRESSED_BYTES = 1024  # that one may grow to
_ID3_START = re.compile(rb"ID3[\x02-\x04][^\xff].[\x00-\x7f]{4}", re.DOTALL)
# FFmpeg leaves out frames of other names. In one of a hundred songs, "ID3" occurs by chance, but none of these follows.
_ID3_NAME = re.compile(rb"T.*|[A-Z0-9]+", re.DOTALL)
# Objects of an ASF header that begin with a number of entries; those that hold objects, and the bytes before these.
_ASF_COUNTS = tuple(
    bytes.fromhex(name)
    for name in (
        "40a4d0d207e3d21197f000a0c95ea850",
        "eacbf8c5af5b77488467aa8c44fa4cca",
        "941c23449894d149a1411d134e457054",
    )
)
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_ASF_HEADERS = {_ASF_HEADER: 6, _ASF_EXTENSION: 22}
_W64_TEXTS = bytes.fromhex("bc945f925a52d21186dc00c04f8edb8a")
_FLV_SCRIPT = b"\x12"
# Of a script, for each property: what an index of the pictures of a film of three hours takes is far from too many.
_FLV_BYTES = 128
_REAL_BYTES = 64  # of what describes a stream


def refuse_too_many_tags(path: Path) -> None:
    """Raise `UserError` if a file holds more tags, pictures and chapters than any music does."""
    with path.open("rb") as file:
        counts = itertools.accumulate(_tags(file, path.stat().st_size))
        if any(count > MOST_TAGS for count in counts):
            raise UserError(
                f"{path}: its tags, pictures and chapters are too many (over {MOST_TAGS}) or too large; remove some"
            )


def bounded(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as far as they are no longer than tags are, names in small letters."""
    kept, left = {}, _MOST_TEXT_IN_ALL
    for name, text in tags.items():
        size = len(name) + len(text)
        if size <= min(left, _MOST_TEXT):
            kept[name.lower()] = text
            left -= size
    return kept


def _tags(file: BinaryIO, size: int) -> Iterator[int]:
    """Numbers of tags that a file holds here and there."""
    start = 0
    while (head := _read(file, start, 32))[:3] in (b"ID3", b"ea3"):  # the latter in OpenMG files
        yield from _id3_frames(file, start)
        start += 10 + _id3_size(head[6:10])
    yield from _ape_tags(file, size)
    if _MXF_START in _read(file, start, 1 << 17):
        yield from (1 for _ in itertools.islice(_found(file, _MXF_SET), None, None, _MXF_SETS))
    if head[:4] == b"fLaC":
        yield from _flac_tags(file, start + 4, size)
    elif head[:4] == b"OggS":
        yield from _ogg_tags(file, start)
    elif head[:4] in (b"RIFF", b"ON2 "):
        yield from _chunk_tags(file, chunk_head, start + 12, size)
    elif head[:4] in (b"RF64", b"BW64"):
        long = int.from_bytes(_read(file, start + 28, 8), "little")
        yield from _chunk_tags(file, lambda file: _long_chunk_head(file, long), start + 12, size)
    elif head[:4] == b"riff":
        for piece in pieces(file, object_head, start + 40, size, 8):
            if piece.name == _W64_TEXTS:
                yield int.from_bytes(_read(file, piece.start, 4), "little")
    elif head[:3] == b"FLV":
        for piece in pieces(file, flv_head, start + int.from_bytes(head[5:9], "big") + 4, size):
            yield piece.size // _FLV_BYTES if piece.name == _FLV_SCRIPT else 0
    elif head[:4] == b"FORM":
        yield from _chunk_tags(file, aiff_head, start + 12, size)
    elif head[:4] == b"caff":
        for piece in pieces(file, caf_head, start + 8, size):
            if piece.name == b"info":
                yield int.from_bytes(_read(file, piece.start, 4), "big")
    elif head[4:8] in MP4_STARTS:
        yield from _boxes(file, start, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        yield from _elements(file, start, size)
    elif head[:4] == b"DSD ":
        yield from _id3_frames(file, start + min(size, int.from_bytes(head[20:28], "little")))
    elif head[:16] == _ASF_HEADER:
        yield from _asf_tags(file, start, size)
    elif head[:4] == b".RMF":
        yield from (
            piece.size // _REAL_BYTES for piece in pieces(file, real_head, start, size) if piece.name == b"MDPR"
        )
    elif head[:7] == b"NIST_1A":
        yield _read(file, start, _MOST_TEXT_IN_ALL).partition(b"end_head")[0].count(b"\n")
    elif head:  # in AAC they may be anywhere
        for place in list(itertools.islice(_found(file, _ID3_START), MOST_TAGS)):
            yield from _id3_frames(file, place)


def _found(file: BinaryIO, what: re.Pattern[bytes]) -> Iterator[int]:
    """Where something is in a file that is not empty."""
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return (match.start() for match in what.finditer(content))


def _long_chunk_head(file: BinaryIO, size: int) -> tuple[bytes, int] | None:
    """Of wav files whose sound has a `size` that the head of its chunk has no room for."""
    found = chunk_head(file)
    return (b"data", size) if found == (b"data", 0xFFFFFFFF) else found


def _weight(size: int) -> int:
    """What a tag of `size` bytes counts."""
    return 1 if size <= _MOST_BYTES else MOST_TAGS + 1


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _id3_size(content: bytes) -> int:
    return sum((byte & 127) << shift for byte, shift in zip(content, (21, 14, 7, 0), strict=False))


def _id3_frames(file: BinaryIO, start: int) -> Iterator[int]:
    """One for every frame of an ID3v2 tag, as FFmpeg finds them; chapters have frames of their own."""
    head = _read(file, start, 10)
    content = file.read(_id3_size(head[6:10]))
    version, flags = (head[3], head[5]) if len(head) == 10 else (0, 0)
    name_bytes, head_bytes = (3, 6) if version == 2 else (4, 10)
    place = 0
    if flags & 0x40 and version > 2:
        place = _id3_size(content[:4]) + (4 if version == 3 else 0)
    while place + head_bytes <= len(content):
        name, length = content[place : place + name_bytes], content[place + name_bytes : place + 2 * name_bytes]
        size = int.from_bytes(length, "big")
        place += head_bytes
        if version == 4 and size > 127:
            # Some programs write sizes as in version 3; what follows tells.
            plain, size = size, _id3_size(length)
            if plain < len(content) - place and not _is_id3_name(content[place + size : place + size + 4]):
                size = plain
        if size and not name[0]:
            return
        frame = content[place : place + size]
        if not _ID3_NAME.fullmatch(name):
            pass
        elif size and head_bytes == 10 and content[place - 1] & _ID3_COMPRESSED:
            yield MOST_TAGS + 1 if name == b"CHAP" else 1 + int.from_bytes(frame[:4], "big") // _ID3_COMPRESSED_BYTES
        elif name == b"CHAP":
            frame = frame.replace(b"\xff\0", b"\xff")
            yield _chapter_frames(frame[frame.find(b"\0") + 17 :])
        elif size:
            yield _weight(len(frame))
        place += size


def _is_id3_name(name: bytes) -> bool:
    return name == bytes(4) or re.fullmatch(rb"[A-Z0-9]{4}", name) is not None


def _chapter_frames(content: bytes) -> int:
    """How many frames there are in a chapter, with itself."""
    place, count = 0, 1
    while place + 10 < len(content):
        place += 10 + int.from_bytes(content[place + 4 : place + 8], "big")
        count += 1
    return count


def _ape_tags(file: BinaryIO, size: int) -> Iterator[int]:
    """What the footer of an APE tag at the end of a file says, also before an ID3v1 tag."""
    for end in (size, size - 128):
        footer = _read(file, max(0, end - 32), 32)
        if footer[:8] == b"APETAGEX":
            yield int.from_bytes(footer[16:20], "little")


def _comments(content: bytes) -> int:
    """How many Vorbis comments there are; their number follows on the name of the program that wrote them."""
    place = 4 + int.from_bytes(content[:4], "little")
    return int.from_bytes(content[place : place + 4], "little") if place + 4 <= len(content) else MOST_TAGS + 1


def _flac_tags(file: BinaryIO, start: int, size: int) -> Iterator[int]:
    is_last = False
    while not is_last and start < size:
        head = _read(file, start, 4)
        is_last, length = bool(head[0] & 128), int.from_bytes(head[1:], "big")
        if head[0] & 127 == 4:
            yield _comments(file.read(length))
        yield 1
        start += 4 + length


def _ogg_tags(file: BinaryIO, start: int) -> Iterator[int]:
    """Of all packets of comments, wherever they are."""
    file.seek(start)
    kinds: dict[int, tuple[tuple[bytes, ...], int, int]] = {}
    numbers: dict[int, int] = {}
    for page in ogg_pages(file, check=True):
        if not page.is_whole:
            continue
        if page.is_first or page.stream not in kinds:
            found = (kind for name, kind in _OGG_COMMENTS.items() if page.content.startswith(name))
            kinds[page.stream], numbers[page.stream] = next(found, ((), 0, 0)), 0
        names, before, last = kinds[page.stream]
        for place in page.packets:
            if 0 < numbers[page.stream] <= last and page.content.startswith(names, place):
                yield _comments(page.content[place + before :])
            numbers[page.stream] += 1


def _chunk_tags(file: BinaryIO, head: Head, start: int, stop: int) -> Iterator[int]:
    """Of wav, AVI and AIFF: chunks of text, and ID3v2 tags within chunks."""

    def inside(piece: Piece) -> int | None:
        return 4 if piece.name == b"LIST" and _read(file, piece.start, 4) not in (b"movi", b"adtl") else None

    for name, piece in nested(file, head, start, stop, inside, align=2):
        if piece.name in (b"id3 ", b"ID3 "):
            yield from _id3_frames(file, piece.start)
        elif name == b"LIST":
            yield _weight(piece.size)


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Of MP4 and QuickTime."""

    def inside(piece: Piece) -> int | None:
        if piece.name != b"meta":
            return 0 if piece.name in _BOXES else None
        # FFmpeg takes whatever is before the first box, which is of this name, for something else.
        words = struct.iter_unpack("4s", _read(file, piece.start, min(piece.size, _MOST_META) // 4 * 4))
        return next((4 * number - 4 for number, (word,) in enumerate(words) if word == b"hdlr"), None)

    for name, piece in nested(file, box_head, start, stop, inside):
        yield _weight(piece.size) if name in (b"udta", b"ilst") else 0


def _elements(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Of Matroska: of what FFmpeg finds before the sound, and what an index there points to."""
    segment, sound = start, stop
    for name, piece in nested(
        file, element_head, start, stop, lambda one: 0 if one.name == _MATROSKA_SEGMENT else None
    ):
        if piece.name == _MATROSKA_SEGMENT:
            segment = piece.start
        elif piece.name == _MATROSKA_CLUSTER and name == _MATROSKA_SEGMENT:
            sound = piece.start
            break
    places = set()
    for place in itertools.takewhile(lambda place: place < sound, _found(file, _MATROSKA_SOUGHT)):
        head = _read(file, place, 11)
        places.add(place if head[0] != 0x53 else segment + int.from_bytes(head[3 : 3 + (head[2] & 15)], "big"))
        if len(places) > MOST_TAGS:
            break
    yield len(places)
    for place in places:
        first = next(pieces(file, element_head, place, stop), None)
        end = stop if first is None or first.size == UNKNOWN else first.stop
        for _, piece in nested(
            file, element_head, place, min(stop, end), lambda one: 0 if one.name in _MATROSKA else None
        ):
            yield _weight(piece.size) if piece.name in _MATROSKA_COUNTED else 0


def _asf_tags(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Of the objects in the header of an ASF file and its extension."""
    for _, piece in nested(file, object_head, start, stop, lambda piece: _ASF_HEADERS.get(piece.name)):
        if piece.name in _ASF_COUNTS:
            yield int.from_bytes(_read(file, piece.start, 2), "little")
