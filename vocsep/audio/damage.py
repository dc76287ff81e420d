"""Whether a sound file is whole: what its header announces, compared with what there is."""

import struct
from pathlib import Path
from typing import BinaryIO

from storage.errors import UserError
from vocsep.audio.containers import (
    MP4_STARTS,
    Head,
    Piece,
    aiff_head,
    box_head,
    caf_head,
    chunk_head,
    dsf_head,
    element_head,
    object_head,
    ogg_pages,
    pieces,
    real_head,
    voice_head,
)

WAV_KINDS = (b"RIFF", b"RF64", b"BW64")
"""How wav files begin; the latter two may have more than 4 GB."""


class DamagedSound(UserError):
    """A sound file that was cut off, or of which a part cannot be decoded."""


# What programs write whose output is a pipe and that cannot come back to fill in the size, or a little less.
_STAND_INS = (0x7F000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_NEAR_STAND_IN = 65_536
# Some programs count a header in that is not part of the sound, in formats whose sound is one piece.
_MOST_HEADER_BYTES = 512
_ONE_PIECE = (b"data", b"SSND", b".snd", b"RIFF", b"DATA")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_VOICE = b"Creative Voice File\x1a"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"


def refuse_cut(path: Path) -> None:
    """Raise `DamagedSound` if a file ends before the sound that its header announces.

    A size that means "unknown when writing began", as in a pipe, says nothing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"OggS":
            _refuse_cut_ogg(path, file)
            return
        for piece in _sounds(file, head, size):
            missing = piece.stop - size
            counted_in = min(piece.start, _MOST_HEADER_BYTES) if piece.name[:4] in _ONE_PIECE else 0
            if missing > counted_in and not _is_unknown(piece.size):
                raise DamagedSound(f"{path}: cut off, {missing} of {piece.size} bytes of sound are missing")


def missing_sizes(path: Path) -> dict[int, bytes]:
    """What FFmpeg needs in place of sizes that a pipe left unknown, by position; none where it reads the file as it is.

    It guesses those of plain wav files only.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] not in (*WAV_KINDS[1:], b"riff", b"FORM"):
            return {}
        for piece in _sounds(file, head, size):
            if not _is_unknown(piece.size) or 0 < piece.size <= size - piece.start:
                continue
            if head[:4] in WAV_KINDS:
                return {0: WAV_KINDS[0]}
            if head[:4] == b"FORM":
                return {4: _big(size - 8), piece.start - 4: _big(size - piece.start)}
            return {16: struct.pack("<Q", size), piece.start - 8: struct.pack("<Q", size - piece.start + 24)}
    return {}


def _big(size: int) -> bytes:
    return struct.pack(">I", min(size, 0xFFFFFFFF))


def _is_unknown(size: int) -> bool:
    near = any(abs(size - stand_in) <= _NEAR_STAND_IN for stand_in in _STAND_INS)
    return size <= 0 or near or size >= 1 << 62


def _sounds(file: BinaryIO, head: bytes, size: int) -> list[Piece]:
    """The pieces of a file that hold its sound."""

    def named(names: tuple[bytes, ...], head: Head, start: int, align: int = 1) -> list[Piece]:
        return [piece for piece in pieces(file, head, start, size, align) if piece.name in names]

    if head[:4] in WAV_KINDS and head[8:12] in (b"WAVE", b"XWMA"):
        return _wav_sound(file, head, size)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return named((b"RIFF",), chunk_head, 0, 2)
    if head[:4] == b"riff":
        return named((b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a",), object_head, 40, 8)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC", b"8SVX", b"16SV"):
        return named((b"SSND", b"BODY"), aiff_head, 12, 2)
    if head[:4] == b".snd":
        return [Piece(b".snd", *struct.unpack(">II", head[4:12]))] if len(head) >= 12 else []
    if head[:4] == b"caff":
        return named((b"data",), caf_head, 8)
    if head[4:8] in MP4_STARTS:
        return named((b"mdat", b"moov", b"moof"), box_head, 0)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return named((_MATROSKA_SEGMENT,), element_head, 0)
    if head[:3] == b"FLV":
        return _flv_file(file)
    if head[:4] == b"\x30\x26\xb2\x75":
        return named((_ASF_DATA,), object_head, 0)
    if head[:4] == b".RMF":
        return named((b"DATA",), real_head, 0)
    if head[:4] in (b".SoX", b"XoS.") and len(head) >= 16:
        size, samples = struct.unpack("<IQ" if head[:1] == b"." else ">IQ", head[4:16])
        return [Piece(b".SoX", 4 + size, 4 * samples)]
    if head[:4] == b"DSD ":
        return named((b"data",), dsf_head, 0)
    if head[:4] == b"FRM8":
        return named((b"DSD ", b"DST "), caf_head, 16, 2)
    if head[:20] == _VOICE:
        return list(pieces(file, voice_head, int.from_bytes(head[20:22], "little"), size))
    return []


def _wav_sound(file: BinaryIO, head: bytes, size: int) -> list[Piece]:
    """The `data` chunk of a wav file, if its size can be true."""
    whole, long = int.from_bytes(head[4:8], "little") + 8, 0
    for piece in pieces(file, chunk_head, 12, size, 2):
        if piece.name == b"ds64":
            file.seek(piece.start + 8)
            long = int.from_bytes(file.read(8), "little")
        if piece.name != b"data":
            continue
        if head[:4] in (b"RF64", b"BW64"):
            return [Piece(piece.name, piece.start, long)] if piece.size == 0xFFFFFFFF else [piece]
        # Not if the size of the whole, which is written last, is smaller.
        return [] if piece.start <= whole <= size else [piece]
    return []


def _flv_file(file: BinaryIO) -> list[Piece]:
    """All of an FLV file, which is as long as its first tag may say."""
    file.seek(0)
    name, value = b"\x00\x08filesize\x00", struct.Struct(">d")
    _, found, rest = file.read(4096).partition(name)
    size = value.unpack_from(rest)[0] if found and len(rest) >= value.size else 0.0
    return [Piece(b"FLV", 0, int(size))] if 0 < size < 1 << 62 else []


def _refuse_cut_ogg(path: Path, file: BinaryIO) -> None:
    """Every page of an Ogg file has its number, and the last of each stream says so."""
    file.seek(0)
    following: dict[int, int] = {}
    ended: set[int] = set()
    for page in ogg_pages(file, check=True):
        if not page.is_whole:
            continue
        if page.is_first or page.stream not in following:
            ended.discard(page.stream)
        elif page.number != following[page.stream]:
            raise DamagedSound(f"{path}: damaged, pages are missing before page {page.number}")
        following[page.stream] = page.number + 1
        if page.is_last:
            ended.add(page.stream)
    if following.keys() - ended:
        raise DamagedSound(f"{path}: cut off, its last page is missing")


def announced_frames(path: Path) -> int:
    """Frames that the first one of an mp3 file announces; 0 if it does not, or the file is as long as it says."""
    with path.open("rb") as file:
        start = 0
        while (tag := file.read(10))[:3] == b"ID3" and len(tag) == 10:
            start += 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            file.seek(start)
        file.seek(start)
        frames, size = _announced(file.read(256))
    return 0 if size and start + size <= path.stat().st_size else frames


def _announced(frame: bytes) -> tuple[int, int]:
    """Frames and bytes that the first frame of an mp3 file says follow; 0 where it does not."""
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return 0, 0
    if frame[36:40] == b"VBRI":
        size, frames = struct.unpack(">II", frame[46:54])
        return frames, size
    is_first_version, is_mono = frame[1] & 8, frame[3] >> 6 == 3
    place = 4 + ((17 if is_mono else 32) if is_first_version else (9 if is_mono else 17))
    if frame[place : place + 4] not in (b"Xing", b"Info"):
        return 0, 0
    flags, *numbers = struct.unpack(">III", frame[place + 4 : place + 16])
    frames = numbers.pop(0) if flags & 1 else 0
    return frames, numbers[0] if flags & 2 else 0
