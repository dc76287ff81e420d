"""One array in one shard file: how it is laid out, and how it is opened for reading.

A shard file of the `sharding_indexed` codec is the chunks' bytes in any order, then an index of one
`(offset, length)` pair of little-endian uint64 per chunk in C order, then the index's CRC-32C
(Zarr v3 specification, "Sharding codec", version 1.0). zarr-python writes the chunks in Morton order; written in C
order instead, with chunks that split only the second axis, the chunks' bytes are the array's bytes, so that a
patch is one contiguous slice of a memory map, and any Zarr v3 reader still reads the file.
"""

import math
import mmap
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr

from storage.compressed import chunk_fault
from storage.errors import DamagedError
from storage.layout import chunk_shape, padded_shape
from storage.manifest import ArrayRecord
from storage.metadata import compressor_of

Array = npt.NDArray[np.generic]


def contiguous_index(shape: tuple[int, ...], chunk_length: int, item_bytes: int) -> bytes:
    """Shard index (with its checksum) of an uncompressed shard whose chunks are in C order."""
    whole = padded_shape(shape, chunk_length)
    chunk_bytes = math.prod(chunk_shape(shape, chunk_length)) * item_bytes
    chunks = whole[0] * (whole[1] // chunk_length)
    index = np.empty((chunks, 2), dtype="<u8")
    index[:, 0] = np.arange(chunks) * chunk_bytes
    index[:, 1] = chunk_bytes
    content = index.tobytes()
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(4, "little")


def shard_bytes(shape: tuple[int, ...], chunk_length: int, item_bytes: int) -> int:
    """Size in bytes of the shard file of an array of `shape`, uncompressed."""
    index = contiguous_index(shape, chunk_length, item_bytes)
    return math.prod(padded_shape(shape, chunk_length)) * item_bytes + len(index)


class ZarrShard:
    """An array whose shard only zarr can read: compressed, or with chunks in another order. Slicing it decodes."""

    def __init__(self, path: Path, record: ArrayRecord) -> None:
        self._path = path
        try:
            self._array = zarr.open_array(path.parents[len(record.shape)], mode="r", zarr_format=3)
        except Exception as error:  # a damaged zarr.json leads to errors of many kinds
            raise self._unreadable(error) from None
        if (self._array.shape, self._array.dtype) != (record.shape, np.dtype(record.dtype)):
            raise self._unreadable(f"{self._array.shape} {self._array.dtype} in zarr.json")

    def __getitem__(self, selection: Any) -> Array:
        """Decoded values of a selection of integers, slices and `...`, read-only.

        Raises
        ------
        DamagedError
            If the shard is damaged.
        """
        try:
            values = np.asarray(self._array[selection])
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unreadable(error) from None
        values.flags.writeable = False
        return values

    def _unreadable(self, reason: object) -> DamagedError:
        return DamagedError(
            f"{self._path}: cannot be decoded ({str(reason).splitlines()[0]}); run `vocsep store verify`"
        )


def open_shard(path: Path, record: ArrayRecord) -> Array | ZarrShard:
    """The array whose shard is at `path`: a read-only memory map where its chunks are uncompressed in C order.

    Raises
    ------
    DamagedError
        If the file is missing, or of another size than `record` says.
    OSError
        If it cannot be read or mapped.
    """
    try:
        with path.open("rb", buffering=0) as file:
            descriptor = file.fileno()
            size = os.fstat(descriptor).st_size
            if size != record.bytes:
                raise DamagedError(
                    f"{path}: shard of {size} bytes instead of {record.bytes}; run `vocsep store verify`"
                )
            # An uncompressed shard in C order has exactly the size and the index that its shape asks for. A compressed
            # one may have them by chance.
            compressor = compressor_of(path.parents[len(record.shape)], record)
            if compressor is None and _is_in_order(descriptor, size, record):
                pages = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
                whole = padded_shape(record.shape, record.chunk_length)
                return np.ndarray(whole, np.dtype(record.dtype).newbyteorder("<"), pages)[:, : record.shape[1]]
            if compressor is not None and (fault := chunk_fault(descriptor, record, compressor)):
                raise DamagedError(f"{path}: cannot be decoded ({fault}); run `vocsep store verify`")
    except FileNotFoundError:
        raise DamagedError(f"{path}: shard is missing; run `vocsep store verify` and preprocess again") from None
    return ZarrShard(path, record)


def _is_in_order(descriptor: int, size: int, record: ArrayRecord) -> bool:
    """Whether the chunks of an uncompressed shard are in C order."""
    item_bytes = np.dtype(record.dtype).itemsize
    if size != shard_bytes(record.shape, record.chunk_length, item_bytes):
        return False
    index = contiguous_index(record.shape, record.chunk_length, item_bytes)
    return index == os.pread(descriptor, len(index), size - len(index))
