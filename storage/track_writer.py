"""Writing one track of a store: arrays grow block by block in a folder that is renamed when it is complete."""

import contextlib
import math
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from storage.files import size_and_checksum, writing_folder
from storage.layout import chunk_shape, padded_shape
from storage.manifest import ArrayRecord, TrackRecord, shard_path
from storage.metadata import METADATA, metadata_checksum
from storage.shards import contiguous_index

FRAMES_PER_CHUNK = 128
SAMPLES_PER_CHUNK = 65536
TEMPORARY_FOLDER = ".unfinished"

Compression = Literal["none", "zstd", "blosc"]


class ArrayWriter(ABC):
    """One array in one shard file, written along its second axis, block after block."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[np.generic], chunk_length: int) -> None:
        self.shape = shape
        self.dtype = dtype
        self.chunk_length = chunk_length
        self._position = 0

    def write(self, block: npt.NDArray[np.generic]) -> None:
        """Append `(channels, length, ...)` along the second axis.

        Raises
        ------
        ValueError
            If the block does not fit into the array's shape.
        """
        length = block.shape[1]
        expected = (self.shape[0], length, *self.shape[2:])
        if block.shape != expected or self._position + length > self.shape[1]:
            raise ValueError(f"block {block.shape} at {self._position} does not fit an array of {self.shape}")
        self._put(block, self._position)
        self._position += length

    def complete(self) -> None:
        """Write what is still to be written.

        Raises
        ------
        ValueError
            If fewer blocks were written than the shape holds.
        """
        if self._position != self.shape[1]:
            raise ValueError(f"{self._position} of {self.shape[1]} written")

    @abstractmethod
    def _put(self, block: npt.NDArray[np.generic], position: int) -> None: ...


class PlainArrayWriter(ArrayWriter):
    """An uncompressed array.

    The file gets its full size at once, so that a full disk is met early; every block goes to its final place, so that
    no more than a block is ever held in memory.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic], chunk_length: int) -> None:
        super().__init__(shape, dtype, chunk_length)
        self._path = path
        self._row_bytes = math.prod(shape[2:]) * dtype.itemsize
        self._channel_bytes = padded_shape(shape, chunk_length)[1] * self._row_bytes
        index = contiguous_index(shape, chunk_length, dtype.itemsize)
        path.parent.mkdir(parents=True)
        with path.open("xb") as file:
            _allocate(file.fileno(), shape[0] * self._channel_bytes + len(index))
            file.seek(shape[0] * self._channel_bytes)
            file.write(index)

    def _put(self, block: npt.NDArray[np.generic], position: int) -> None:
        with self._path.open("r+b") as file:
            for channel in range(self.shape[0]):
                file.seek(channel * self._channel_bytes + position * self._row_bytes)
                file.write(np.ascontiguousarray(block[channel], self.dtype.newbyteorder("<")).data)


class CompressedArrayWriter(ArrayWriter):
    """A compressed array: held in memory whole, and written whole by zarr."""

    def __init__(self, array: "zarr.Array[Any]", chunk_length: int) -> None:
        super().__init__(array.shape, array.dtype, chunk_length)
        self._array = array
        self._values = np.empty(array.shape, array.dtype)

    def _put(self, block: npt.NDArray[np.generic], position: int) -> None:
        self._values[:, position : position + block.shape[1]] = block

    def complete(self) -> None:
        """Have zarr write all values; see `ArrayWriter.complete`."""
        super().complete()
        self._array[...] = self._values


def _allocate(descriptor: int, size: int) -> None:
    """Give a new file its size, and where the system can, its place on the disk."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        os.ftruncate(descriptor, size)


class TrackWriter:
    """The arrays of one track on their way into a store; see `track_writer`."""

    def __init__(self, folder: Path, group: zarr.Group, compression: Compression) -> None:
        self._folder = folder
        self._group = group
        self._compression = compression
        self._arrays: dict[str, ArrayWriter] = {}
        self.record: TrackRecord | None = None

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ArrayWriter:
        """A new array: a spectrogram `(channels, frames, bins)` or a waveform `(channels, samples)`."""
        kind = np.dtype(dtype)
        chunk_length = FRAMES_PER_CHUNK if len(shape) == 3 else SAMPLES_PER_CHUNK
        array = self._group.create_array(
            name,
            shape=shape,
            dtype=kind,
            chunks=chunk_shape(shape, chunk_length),
            shards=padded_shape(shape, chunk_length),
            compressors=_compressor(self._compression, kind),
            fill_value=0,
            dimension_names=("channel", "frame", "bin") if len(shape) == 3 else ("channel", "sample"),
            # Silence gets its chunks and its shard too: a missing shard is a lost one.
            config={"write_empty_chunks": True},
        )
        self._arrays[name] = (
            PlainArrayWriter(Path(shard_path(str(self._folder), name, len(shape))), shape, kind, chunk_length)
            if self._compression == "none"
            else CompressedArrayWriter(array, chunk_length)
        )
        return self._arrays[name]

    def finish(self, track_path: str) -> dict[str, ArrayRecord]:
        """Complete every array; returns the manifest's records of them, for a track that will be at `track_path`."""
        records = {}
        for name, array in self._arrays.items():
            array.complete()
            size, checksum = size_and_checksum(Path(shard_path(str(self._folder), name, len(array.shape))))
            records[name] = ArrayRecord(
                shard=shard_path(track_path, name, len(array.shape)),
                shape=array.shape,
                dtype=cast(Literal["float16", "float32"], array.dtype.name),
                chunk_length=array.chunk_length,
                bytes=size,
                crc32c=checksum,
                metadata_crc32c=metadata_checksum(self._folder / name / METADATA),
            )
        return records


def _compressor(compression: Compression, dtype: np.dtype[np.generic]) -> ZstdCodec | BloscCodec | None:
    if compression == "none":
        return None
    if compression == "zstd":
        return ZstdCodec(level=3)
    # Magnitudes are noise in their low bits and alike in their high ones, which `bitshuffle` brings together: of real
    # songs in float16 it leaves 85 %, shuffled bytes 89 %, and zstd alone 90 %.
    return BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=dtype.itemsize)


@contextlib.contextmanager
def track_writer(
    store_path: Path, track_id: str, *, name: str, split: str, seconds: float, compression: Compression = "none"
) -> Iterator[TrackWriter]:
    """Write one track, whole; the manifest itself is the caller's to save.

    Arrays are written to a temporary folder inside the store, which is renamed at the end of the `with` block, so that
    a process that dies leaves nothing under the track's name. A track of that name is replaced. Afterwards the
    writer's `record` is the track's manifest record, without its sources.

    Parameters
    ----------
    compression
        `none` writes block by block and is read by memory map. `zstd` and `blosc` hold whole arrays in memory and are
        read by zarr. The same values give the same bytes.

    Raises
    ------
    OSError
        If the disk is full or cannot be written; nothing is left behind.
    """
    temporary = store_path / TEMPORARY_FOLDER / f"{track_id}-{uuid.uuid4().hex}"
    with writing_folder(store_path / split / track_id, temporary, replace=True):
        group = zarr.open_group(temporary, mode="w", attributes={"name": name, "seconds": seconds})
        writer = TrackWriter(temporary, group, compression)
        yield writer
        arrays = writer.finish(f"{split}/{track_id}")
        checksum = metadata_checksum(temporary / METADATA)
    channels, frames = next(iter(arrays.values())).shape[:2]
    writer.record = TrackRecord(
        id=track_id,
        name=name,
        split=split,
        channels=channels,
        frames=frames,
        seconds=seconds,
        sources=(),
        arrays=arrays,
        metadata_crc32c=checksum,
    )
