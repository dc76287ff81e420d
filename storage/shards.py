"""One array in one shard: encoding a Zarr v3 shard file whole, and mapping it back into memory.

A shard file of the `sharding_indexed` codec is the chunks' bytes in any order, then an index of one
`(offset, length)` pair of little-endian uint64 per chunk in C order, then the index's CRC-32C
(Zarr v3 specification, "Sharding codec", version 1.0). zarr-python writes the chunks in Morton order; written in C
order instead, with chunks that split only the second axis, the chunks' bytes are the array's bytes, so that a
patch is one contiguous slice of a memory map, and any Zarr v3 reader still reads the file.
"""

import math
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from storage.errors import UserError

INDEX_ENTRY_BYTES = 16
CHECKSUM_BYTES = 4


def padded_shape(shape: tuple[int, ...], chunk_length: int) -> tuple[int, ...]:
    """`shape` with its second axis rounded up to whole chunks, at least one."""
    return (shape[0], max(1, math.ceil(shape[1] / chunk_length)) * chunk_length, *shape[2:])


def chunk_shape(shape: tuple[int, ...], chunk_length: int) -> tuple[int, ...]:
    """Shape of one chunk: one index of the first axis, `chunk_length` of the second, all of the others."""
    return (1, chunk_length, *shape[2:])


def contiguous_index(shape: tuple[int, ...], chunk_length: int, item_bytes: int) -> bytes:
    """Shard index (with its checksum) of an uncompressed shard whose chunks lie in C order."""
    whole = padded_shape(shape, chunk_length)
    chunk_bytes = math.prod(chunk_shape(shape, chunk_length)) * item_bytes
    chunks = math.prod(whole) * item_bytes // chunk_bytes
    index = np.empty((chunks, 2), dtype="<u8")
    index[:, 0] = np.arange(chunks) * chunk_bytes
    index[:, 1] = chunk_bytes
    content = index.tobytes()
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(CHECKSUM_BYTES, "little")


def shard_bytes(shape: tuple[int, ...], chunk_length: int, item_bytes: int) -> int:
    """Size in bytes of the shard file of an array of `shape`."""
    whole = padded_shape(shape, chunk_length)
    chunks = whole[0] * whole[1] // chunk_length
    return math.prod(whole) * item_bytes + chunks * INDEX_ENTRY_BYTES + CHECKSUM_BYTES


def encode_shard(array: npt.NDArray[np.generic], chunk_length: int) -> bytes:
    """Bytes of the shard file that holds `array`, of two axes or more, uncompressed and little-endian."""
    whole = padded_shape(array.shape, chunk_length)
    little = array.dtype.newbyteorder("<")
    if whole == array.shape:
        content = np.ascontiguousarray(array, dtype=little)
    else:
        content = np.zeros(whole, dtype=little)
        content[:, : array.shape[1]] = array
    return content.tobytes() + contiguous_index(array.shape, chunk_length, array.dtype.itemsize)


def map_shard(
    path: Path, shape: tuple[int, ...], chunk_length: int, dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic]:
    """Read-only memory map of the shard at `path` as an array of `shape`.

    Raises
    ------
    UserError
        If the file is missing, has another size, or is not laid out contiguously.
    """
    whole = padded_shape(shape, chunk_length)
    data_bytes = math.prod(whole) * dtype.itemsize
    expected = contiguous_index(shape, chunk_length, dtype.itemsize)
    try:
        with path.open("rb") as file:
            file.seek(data_bytes)
            index = file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: shard is missing; run `vocsep store verify` and preprocess again") from None
    if index != expected:
        raise UserError(f"{path}: not an uncompressed shard of shape {shape}; run `vocsep store verify`")
    return np.memmap(path, dtype=dtype.newbyteorder("<"), mode="r", shape=whole)[:, : shape[1]]
