"""Writing one track of a store: arrays grow block by block in a folder that is renamed when all of it is there."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr

from storage.manifest import ArrayRecord, SourceFile, TrackRecord
from storage.shards import chunk_shape, contiguous_index, padded_shape

FRAMES_PER_CHUNK = 128
SAMPLES_PER_CHUNK = 65536
TEMPORARY_FOLDER = ".unfinished"

_READ_BYTES = 1 << 22


class ArrayWriter:
    """One uncompressed array in one shard file, written along its second axis, block after block.

    The file gets its full size at once, so that a full disk is met early; every block goes to its final place, so that
    no more than a block is ever held in memory.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[np.generic], chunk_length: int) -> None:
        self._file = file
        self._shape = shape
        self._dtype = dtype.newbyteorder("<")
        self._chunk_length = chunk_length
        self._position = 0
        self._row_bytes = int(np.prod(shape[2:], dtype=np.int64)) * dtype.itemsize
        whole = padded_shape(shape, chunk_length)
        self._channel_bytes = whole[1] * self._row_bytes
        index = contiguous_index(shape, chunk_length, dtype.itemsize)
        self.bytes = shape[0] * self._channel_bytes + len(index)
        os.posix_fallocate(file.fileno(), 0, self.bytes)
        os.pwrite(file.fileno(), index, self.bytes - len(index))

    def write(self, block: npt.NDArray[np.generic]) -> None:
        """Append `(channels, length, ...)` along the second axis.

        Raises
        ------
        ValueError
            If the block does not fit into the array's shape.
        """
        length = block.shape[1]
        expected = (self._shape[0], length, *self._shape[2:])
        if block.shape != expected or self._position + length > self._shape[1]:
            raise ValueError(f"block {block.shape} at {self._position} does not fit an array of {self._shape}")
        for channel in range(self._shape[0]):
            content = np.ascontiguousarray(block[channel], dtype=self._dtype)
            offset = channel * self._channel_bytes + self._position * self._row_bytes
            _write_at(self._file.fileno(), content.data.cast("B"), offset)
        self._position += length

    def finish(self) -> int:
        """Bring the bytes to the disk and return their CRC-32C.

        Raises
        ------
        ValueError
            If fewer blocks were written than the shape holds.
        """
        if self._position != self._shape[1]:
            raise ValueError(f"{self._position} of {self._shape[1]} written")
        os.fsync(self._file.fileno())
        self._file.seek(0)
        checksum = 0
        while block := self._file.read(_READ_BYTES):
            checksum = google_crc32c.extend(checksum, block)
        return checksum


def _write_at(descriptor: int, content: memoryview, offset: int) -> None:
    while len(content):
        written = os.pwrite(descriptor, content, offset)
        content = content[written:]
        offset += written


class TrackWriter:
    """The arrays of one track on their way into a store; see `track_writer`."""

    def __init__(self, folder: Path, group: zarr.Group, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._group = group
        self._stack = stack
        self._arrays: dict[str, tuple[ArrayWriter, tuple[int, ...], np.dtype[np.generic], int]] = {}
        self.record: TrackRecord | None = None

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ArrayWriter:
        """A new array: a spectrogram `(channels, frames, bins)` or a waveform `(channels, samples)`."""
        kind = np.dtype(dtype)
        chunk_length = FRAMES_PER_CHUNK if len(shape) == 3 else SAMPLES_PER_CHUNK
        self._group.create_array(
            name,
            shape=shape,
            dtype=kind,
            chunks=chunk_shape(shape, chunk_length),
            shards=padded_shape(shape, chunk_length),
            compressors=None,
            fill_value=0,
            dimension_names=("channel", "frame", "bin") if len(shape) == 3 else ("channel", "sample"),
        )
        path = self._folder / _shard_name(name, shape)
        path.parent.mkdir(parents=True)
        writer = ArrayWriter(self._stack.enter_context(path.open("xb+")), shape, kind, chunk_length)
        self._arrays[name] = (writer, shape, kind, chunk_length)
        return writer

    def finish(self, track_path: str) -> dict[str, ArrayRecord]:
        """Complete every array; returns the manifest's records of them, for a track that will lie at `track_path`."""
        return {
            name: ArrayRecord(
                shard=f"{track_path}/{_shard_name(name, shape)}",
                shape=shape,
                dtype=cast(Literal["float16", "float32"], kind.name),
                chunk_length=chunk_length,
                bytes=writer.bytes,
                crc32c=writer.finish(),
            )
            for name, (writer, shape, kind, chunk_length) in self._arrays.items()
        }


def _shard_name(name: str, shape: tuple[int, ...]) -> str:
    return "/".join([name, "c", *["0"] * len(shape)])


@contextlib.contextmanager
def track_writer(store: Path, track_id: str, *, name: str, split: str, seconds: float) -> Iterator[TrackWriter]:
    """Write one track, whole; the manifest itself is the caller's to save.

    Arrays are written to a temporary folder inside the store, which is renamed at the end of the `with` block, so that
    a process that dies leaves nothing under the track's name. A track of that name is replaced. Afterwards the
    writer's `record` is the track's manifest record, without its sources.
    """
    temporary = store / TEMPORARY_FOLDER / f"{track_id}-{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            group = zarr.create_group(store=temporary, attributes={"name": name, "seconds": seconds})
            writer = TrackWriter(temporary, group, stack)
            yield writer
            arrays = writer.finish(f"{split}/{track_id}")
        final = store / split / track_id
        if final.exists():
            final.rename(temporary.with_name(f"{temporary.name}-replaced"))
        temporary.rename(final)
    finally:
        for leftover in (store / TEMPORARY_FOLDER).glob(f"{temporary.name}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    channels, frames = arrays["mixture"].shape[:2]
    writer.record = TrackRecord(
        id=track_id,
        name=name,
        split=split,
        channels=channels,
        frames=frames,
        seconds=seconds,
        sources=(),
        arrays=arrays,
    )


def write_track(
    store: Path,
    track_id: str,
    *,
    name: str,
    split: str,
    seconds: float,
    arrays: dict[str, npt.NDArray[np.generic]],
    sources: Iterable[SourceFile],
) -> TrackRecord:
    """Write one track from whole arrays (see `track_writer`) and return its manifest record.

    Parameters
    ----------
    arrays
        Name to array; spectrograms `(channels, frames, bins)`, waveforms `(channels, samples)`.
    """
    with track_writer(store, track_id, name=name, split=split, seconds=seconds) as writer:
        for array_name, array in arrays.items():
            writer.array(array_name, array.shape, array.dtype).write(array)
    assert writer.record is not None
    return writer.record.model_copy(update={"sources": tuple(sources)})
