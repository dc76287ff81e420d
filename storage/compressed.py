"""What the chunks of a compressed shard say of themselves, before anything is allocated for them.

Decoders take as much memory as a chunk's header asks for: a few bytes from a stranger could ask for all there is.
"""

import math
import os

import numpy as np

from storage.layout import chunk_shape, padded_shape
from storage.manifest import ArrayRecord

_NO_CHUNK = 2**64 - 1
_LONGEST_HEADER = 18
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def chunk_fault(descriptor: int, record: ArrayRecord, compressor: str) -> str:
    """Why the chunks of an open shard file cannot be decoded, in words; empty where each is as large as it must be.

    Parameters
    ----------
    compressor
        `zstd` or `blosc`.
    """
    whole = padded_shape(record.shape, record.chunk_length)
    count = whole[0] * (whole[1] // record.chunk_length)
    wanted = math.prod(chunk_shape(record.shape, record.chunk_length)) * np.dtype(record.dtype).itemsize
    content = os.pread(descriptor, 16 * count, max(0, record.bytes - 16 * count - 4))
    if len(content) < 16 * count:
        return "no index"
    for offset, length in np.frombuffer(content, "<u8").reshape(-1, 2).tolist():
        if offset == length == _NO_CHUNK:
            continue
        if offset + length > record.bytes:
            return "a chunk is outside"
        header = os.pread(descriptor, min(length, _LONGEST_HEADER), offset)
        if (zstd_size(header) if compressor == "zstd" else blosc_size(header)) != wanted:
            return "a chunk of another size"
    return ""


def zstd_size(header: bytes) -> int | None:
    """Bytes that a Zstandard frame decodes to, as its header says; None if it does not (RFC 8878, section 3.1.1.1)."""
    if header[:4] != _ZSTD_MAGIC or len(header) < 5:
        return None
    flag, is_single_segment, dictionary = header[4] >> 6, header[4] >> 5 & 1, header[4] & 3
    start = 5 + (not is_single_segment) + (0, 1, 2, 4)[dictionary]
    length = (is_single_segment, 2, 4, 8)[flag]
    field = header[start : start + length]
    if length == 0 or len(field) < length:
        return None
    return int.from_bytes(field, "little") + (256 if flag == 1 else 0)


def blosc_size(header: bytes) -> int | None:
    """Bytes that a Blosc buffer decodes to, as its header says; None if its blocks are larger than that."""
    if len(header) < 16:
        return None
    size, block_size = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8))
    return size if block_size <= max(1, size) else None
