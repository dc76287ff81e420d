"""The pieces that sound files are made of, as far as it takes to tell whether one is whole."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import UserError

MOST_PIECES = 1_000_000
"""That a file is looked through for; three hours of music in Ogg have about 50,000 pages."""

MP4_STARTS = (
    *(b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"),
    *(b"udta", b"uuid", b"junk", b"pict", b"pnot", b"prfl", b"ediw"),
)
"""Names of boxes that FFmpeg knows a file of MP4 or QuickTime by."""

_OGG_HEADER_BYTES = 27
_SYNC_BYTES = 65_536


@dataclass(frozen=True)
class Piece:
    """A chunk, box, object or element: its name, where its contents begin, and how many bytes it says there are."""

    name: bytes
    start: int
    size: int

    @property
    def stop(self) -> int:
        """Where its contents end."""
        return self.start + self.size


Head = Callable[[BinaryIO], tuple[bytes, int] | None]
"""Reads a piece's head: its name and the size of its contents; None at the end of the file."""

UNKNOWN = -1
"""Size of an element that continues until another begins; its content is searched like its siblings."""
_TO_THE_END = 1 << 62


def chunk_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of wav and AVI."""
    head = file.read(8)
    return (head[:4], int.from_bytes(head[4:], "little")) if len(head) == 8 else None


def aiff_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of AIFF."""
    head = file.read(8)
    return (head[:4], int.from_bytes(head[4:], "big")) if len(head) == 8 else None


def caf_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of CAF and DSDIFF."""
    head = file.read(12)
    return (head[:4], int.from_bytes(head[4:], "big")) if len(head) == 12 else None


def dsf_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of DSF, whose sizes count the head in."""
    head = file.read(12)
    return (head[:4], int.from_bytes(head[4:], "little") - 12) if len(head) == 12 else None


def real_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of RealMedia, whose sizes count the head in."""
    head = file.read(8)
    return (head[:4], int.from_bytes(head[4:], "big") - 8) if len(head) == 8 else None


def voice_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of VOC: the name is a number, 0 for the end; a size of 0 lasts until the end of the file."""
    head = file.read(4)
    if len(head) < 4 or not head[0]:
        return None
    return head[:1], int.from_bytes(head[1:], "little") or _TO_THE_END


def object_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of W64 and ASF: 16 bytes of name, and a size that counts the head in."""
    head = file.read(24)
    return (head[:16], int.from_bytes(head[16:], "little") - 24) if len(head) == 24 else None


def flv_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of FLV; the size of a tag is repeated behind it, which is counted in here."""
    head = file.read(11)
    return (head[:1], int.from_bytes(head[1:4], "big") + 4) if len(head) == 11 else None


def box_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of MP4 and QuickTime; a size of 0 lasts until the end of the file."""
    head = file.read(8)
    if len(head) < 8:
        return None
    size, name = int.from_bytes(head[:4], "big"), head[4:]
    if size == 1:
        return name, int.from_bytes(file.read(8), "big") - 16
    return name, size - 8 if size else _TO_THE_END


def element_head(file: BinaryIO) -> tuple[bytes, int] | None:
    """Of Matroska: the name and then the size begin with as many zero bits as they have further bytes."""
    name = file.read(1)
    if not name or not name[0]:
        return None
    name += file.read(8 - name[0].bit_length())
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    size = int.from_bytes(bytes([first[0] ^ (0x80 >> more)]) + file.read(more), "big")
    return name, UNKNOWN if size == (1 << 7 * (more + 1)) - 1 else size


def pieces(file: BinaryIO, head: Head, start: int, stop: int, align: int = 1) -> Iterator[Piece]:
    """The pieces from `start` to `stop`; the last one may extend beyond it.

    Raises `UserError` if there are more than any music has.
    """
    for _ in range(MOST_PIECES):
        if start >= stop:
            return
        file.seek(start)
        found = head(file)
        if found is None:
            return
        piece = Piece(found[0], file.tell(), found[1])
        yield piece
        if piece.size < UNKNOWN:
            return
        stop_of_piece = piece.start if piece.size == UNKNOWN else piece.stop
        start = stop_of_piece + -stop_of_piece % align
    raise _too_many(file)


def nested(
    file: BinaryIO, head: Head, start: int, stop: int, inside: Callable[[Piece], int | None], align: int = 1
) -> Iterator[tuple[bytes, Piece]]:
    """The pieces from `start` to `stop` and those within them, each with the name of what contains it (none: empty).

    Raises `UserError` if there are more than any music has.

    Parameters
    ----------
    inside
        How many bytes from the start of a piece's contents to the first piece in it; None: it is not looked into.
    """
    waiting, count = [(b"", start, stop)], 0
    while waiting:
        name, begin, end = waiting.pop()
        for piece in pieces(file, head, begin, end, align):
            count += 1
            if count > MOST_PIECES:
                raise _too_many(file)
            yield name, piece
            more = inside(piece)
            if more is not None and piece.size > 0:
                waiting.append((piece.name, piece.start + more, min(end, piece.stop)))


def _too_many(file: BinaryIO) -> UserError:
    return UserError(f"{file.name}: is made of too many pieces to be music")


@dataclass(frozen=True)
class Page:
    """A page of an Ogg file.

    Attributes
    ----------
    stream, number
        Which of the file's streams it belongs to, and its number there.
    is_first, is_last
        Of its stream.
    content
        What is in it, as far as the file goes.
    packets
        Where in it packets begin.
    is_whole
        False if the file ends within it, or its checksum is another.
    """

    stream: int
    number: int
    is_first: bool
    is_last: bool
    content: bytes
    packets: tuple[int, ...]
    is_whole: bool


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_checksum(page: bytes) -> int:
    """CRC-32 as Ogg has it, from zlib's, which takes the bits of every byte in the other order."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def ogg_pages(file: BinaryIO, *, check: bool) -> Iterator[Page]:
    """The pages of an Ogg file, with their checksums if `check`; what is between them is skipped.

    Raises `UserError` if there are more than any music has.
    """
    for _ in range(MOST_PIECES):
        start = file.tell()
        head = file.read(_OGG_HEADER_BYTES)
        if len(head) < _OGG_HEADER_BYTES:
            return
        if head[:4] != b"OggS":
            file.seek(start)
            place = (near := file.read(_SYNC_BYTES)).find(b"OggS", 1)
            file.seek(start + (place if place > 0 else max(1, len(near) - 3)))
            continue
        sizes = file.read(head[26])
        content = file.read(sum(sizes))
        whole = len(sizes) == head[26] and len(content) == sum(sizes)
        is_whole = whole
        if check and whole:
            checksum = ogg_checksum(head[:22] + bytes(4) + head[26:] + sizes + content)
            is_whole = checksum == int.from_bytes(head[22:26], "little")
        if whole and not is_whole:
            file.seek(start + 4)  # its size may be what is wrong
        yield Page(
            stream=int.from_bytes(head[14:18], "little"),
            number=int.from_bytes(head[18:22], "little"),
            is_first=bool(head[5] & 2),
            is_last=bool(head[5] & 4),
            content=content,
            packets=tuple(_packet_starts(sizes, begins=not head[5] & 1)),
            is_whole=is_whole,
        )
    raise _too_many(file)


def _packet_starts(sizes: bytes, *, begins: bool) -> Iterator[int]:
    """Where packets begin in a page of pieces of these sizes; one of less than 255 bytes ends its packet."""
    place = 0
    for size in sizes:
        if begins:
            yield place
        begins = size < 255
        place += size
