"""Moving shards between a disk and an object store: in blocks, checked on the way, several at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import google_crc32c
import obstore

from storage.errors import DamagedError
from storage.manifest import ArrayRecord
from storage.metadata import Metadata, content_fault
from storage.remote.bucket import reported

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TRANSFERS = 8
_BLOCK_BYTES = 4 << 20
MOST_METADATA_BYTES = 1 << 20

OnBytes = Callable[[int, int], object]
"""Called with how many of how many bytes are done; first with `(0, total)`."""


class Sized(Protocol):
    """Something of known size."""

    @property
    def bytes(self) -> int:
        """Size in bytes."""


Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


def local_blocks(path: Path) -> Iterator[bytes]:
    """Bytes of a file, in blocks.

    Raises
    ------
    DamagedError
        If it is missing.
    """
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                yield block
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing") from None


def remote_blocks(bucket: "ObjectStore", url: str, key: str) -> Iterator[bytes]:
    """Bytes of the object `key` in the folder at `url`, in blocks.

    Raises
    ------
    DamagedError
        If it is missing.
    UserError
        If the object store cannot be reached or refuses.
    """
    try:
        with reported(url):
            yield from obstore.get(bucket, key).stream(min_chunk_size=_BLOCK_BYTES)
    except FileNotFoundError:
        raise DamagedError(f"{key}: missing") from None


def checked(blocks: Iterable[bytes], record: ArrayRecord, where: str) -> Iterator[bytes]:
    """Pass the blocks of a shard on, and compare them with its record before the end.

    Raises
    ------
    DamagedError
        If they are not what `record` says.
    """
    size = checksum = 0
    for block in blocks:
        size += len(block)
        if size > record.bytes:
            break
        checksum = google_crc32c.extend(checksum, block)
        yield block
    if (size, checksum) != (record.bytes, record.crc32c):
        raise DamagedError(f"{where}: is not what the manifest says (damaged, or just being replaced)")


def checked_metadata(blocks: Iterable[bytes], metadata: Metadata, where: str) -> bytes:
    """Bytes of a metadata file, once they are what they must be.

    Raises
    ------
    DamagedError
        If they are not.
    """
    content = b""
    for block in blocks:
        content += block
        if len(content) > MOST_METADATA_BYTES:
            break
    if fault := content_fault(content, metadata):
        raise DamagedError(f"{where}: {fault}")
    return content


def in_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    on_bytes: OnBytes | None,
    on_result: Callable[[Item, Result], object],
) -> None:
    """Call `function` for all items in a few threads; hooks are called in this one, in the order of completion.

    The first exception, of `function` or of a hook, is raised as soon as what has started is over; the rest is not
    started.
    """
    total = sum(item.bytes for item in items)
    done = 0
    if on_bytes is not None:
        on_bytes(0, total)
    pool = ThreadPoolExecutor(_TRANSFERS)
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            item = futures.pop(future)
            on_result(item, future.result())
            done += item.bytes
            if on_bytes is not None:
                on_bytes(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
