"""How many tags and chapters a file has: FFmpeg's time for them grows with the square of their number."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from storage.errors import UserError
from vocsep.audio.containers import (
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
)

MOST_TAGS = 2000
"""With pictures and chapters, in any place of a file."""
_MOST_BYTES = 1 << 25  # of each
_MOST_TEXT = 1 << 16
_MOST_TEXT_IN_ALL = 1 << 20

# SimpleTag, ChapterAtom, AttachedFile; and what contains them: Segment, Tags, Tag, Chapters, EditionEntry, Attachments.
_MATROSKA_COUNTED = (b"\x67\xc8", b"\xb6", b"\x61\xa7")
_MATROSKA = (
    *(b"\x18\x53\x80\x67", b"\x12\x54\xc3\x67", b"\x73\x73", b"\x10\x43\xa7\x70", b"\x45\xb9", b"\x19\x41\xa4\x69"),
    *_MATROSKA_COUNTED[:2],
)
# How the first packet of an Ogg stream begins, and how many bytes of the second precede its comments.
_OGG_KINDS = {b"\x01vorbis": 7, b"OpusHead": 8, b"Speex   ": 0, b"\x80theora": 7}
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
    if head[:4] == b"fLaC":
        yield from _flac_tags(file, start + 4, size)
    elif head[:4] == b"OggS":
        yield from _ogg_tags(file, start)
    elif head[:4] in (b"RIFF", b"RF64", b"BW64"):
        yield from _chunk_tags(file, chunk_head, start + 12, size)
    elif head[:4] == b"riff":
        for piece in pieces(file, object_head, 40, size, 8):
            if piece.name == _W64_TEXTS:
                yield int.from_bytes(_read(file, piece.start, 4), "little")
    elif head[:3] == b"FLV":
        for piece in pieces(file, flv_head, int.from_bytes(head[5:9], "big") + 4, size):
            yield piece.size // _FLV_BYTES if piece.name == _FLV_SCRIPT else 0
    elif head[:4] == b"FORM":
        yield from _chunk_tags(file, aiff_head, start + 12, size)
    elif head[:4] == b"caff":
        for piece in pieces(file, caf_head, 8, size):
            if piece.name == b"info":
                yield int.from_bytes(_read(file, piece.start, 4), "big")
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        yield from _boxes(file, start, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        yield from _elements(file, start, size)
    elif head[:4] == b"DSD ":
        yield from _id3_frames(file, min(size, int.from_bytes(head[20:28], "little")))
    elif head[:16] == _ASF_HEADER:
        yield from _asf_tags(file, start, size)


def _weight(size: int) -> int:
    """What a tag of `size` bytes counts."""
    return 1 if size <= _MOST_BYTES else MOST_TAGS + 1


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _id3_size(content: bytes) -> int:
    return sum((byte & 127) << shift for byte, shift in zip(content, (21, 14, 7, 0), strict=False))


def _id3_frames(file: BinaryIO, start: int) -> Iterator[int]:
    """One for every frame of an ID3v2 tag."""
    head = _read(file, start, 14)
    stop = start + 10 + _id3_size(head[6:10])
    version = head[3] if len(head) > 3 else 0
    name_bytes, head_bytes = (3, 6) if version == 2 else (4, 10)
    place = start + 10
    if len(head) == 14 and head[5] & 0x40 and version > 2:
        place += _id3_size(head[10:]) if version == 4 else 4 + int.from_bytes(head[10:], "big")
    while place < stop:
        frame = _read(file, place, head_bytes)
        if len(frame) < head_bytes or not frame[0]:
            return
        content = frame[name_bytes : 2 * name_bytes]
        size = _id3_size(content) if version == 4 else int.from_bytes(content, "big")
        yield _weight(min(size, stop - place))
        place += head_bytes + size


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
    """Of the second packet of every stream; in FLAC of any before the sound."""
    file.seek(start)
    before: dict[int, int] = {}
    flac: set[int] = set()
    for page in ogg_pages(file, check=False):
        if page.is_first and page.content.startswith(b"\x7fFLAC"):
            flac.add(page.stream)
        elif page.stream in flac:
            if page.content[:1] == b"\xff":
                flac.remove(page.stream)
            elif page.content[:1] and page.content[0] & 127 == 4:
                yield _comments(page.content[4:])
        elif page.is_first:
            sizes = [size for name, size in _OGG_KINDS.items() if page.content.startswith(name)]
            before.update((page.stream, size) for size in sizes)
        elif (size := before.pop(page.stream, None)) is not None:
            yield _comments(page.content[size:])


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
        if piece.name == b"meta":  # only in QuickTime its first box follows at once
            return 0 if _read(file, piece.start + 4, 4) == b"hdlr" else 4
        return 0 if piece.name in (b"moov", b"trak", b"udta", b"ilst") else None

    for name, piece in nested(file, box_head, start, stop, inside):
        yield _weight(piece.size) if name in (b"udta", b"ilst") else 0


def _elements(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Of Matroska."""
    for _, piece in nested(file, element_head, start, stop, lambda piece: 0 if piece.name in _MATROSKA else None):
        yield _weight(piece.size) if piece.name in _MATROSKA_COUNTED else 0


def _asf_tags(file: BinaryIO, start: int, stop: int) -> Iterator[int]:
    """Of the objects in the header of an ASF file and its extension."""
    for _, piece in nested(file, object_head, start, stop, lambda piece: _ASF_HEADERS.get(piece.name)):
        if piece.name in _ASF_COUNTS:
            yield int.from_bytes(_read(file, piece.start, 2), "little")
