"""Uploads on their way in: announced with name, size and options, then streamed to the disk as they are."""

import contextlib
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from storage.errors import UserError
from storage.files import free_bytes, is_disk_full
from vocsep.config import Settings
from vocsep.page.options import TakeOptions
from vocsep.page.records import Song
from vocsep.page.songs import Songs, shown_name

MOST_BYTES = 2 << 30
# In addition to the upload, there must be room for its stems.
_ROOM = 4
_FORGET_SECONDS = 3600.0


class TooLarge(UserError):
    """More bytes than are taken, or than were announced."""


class DiskFull(UserError):
    """There is no room for an upload, or for what is made of it."""


class Announcement(Settings):
    """What is going to be uploaded. `name` is for people; nothing on the disk is called so."""

    name: str = Field(max_length=4096)
    size: int = Field(ge=0)
    options: TakeOptions = TakeOptions()


@dataclass
class _Expected:
    announcement: Announcement
    since: float
    is_coming: bool = False


class Uploads:
    """The uploads that were announced and are not songs yet."""

    def __init__(self, songs: Songs, most_bytes: int = MOST_BYTES) -> None:
        self._songs = songs
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._expected: dict[str, _Expected] = {}

    def announce(self, announcement: Announcement) -> str:
        """Id for an upload.

        Raises `TooLarge`, `DiskFull`, or another `UserError` if there are too many songs or the upload is empty.
        """
        name = shown_name(announcement.name)
        if announcement.size == 0:
            raise UserError(f"{name}: is empty")
        if announcement.size > self.most_bytes:
            raise TooLarge(
                f"{name}: has {announcement.size / 1e6:,.0f} MB; at most {self.most_bytes / 1e6:,.0f} MB are taken"
            )
        if free_bytes(self._songs.folder) < _ROOM * announcement.size:
            raise DiskFull(f"{name}: no room on the disk for it and its stems")
        song = self._songs.new_id()
        with self._lock:
            self._expected[song] = _Expected(announcement, time.monotonic())
        return song

    async def receive(self, song: str, blocks: AsyncIterator[bytes]) -> Song | None:
        """Write an announced upload to the disk and make it a song; None if none such is expected.

        Raises `TooLarge`, `DiskFull`, or another `UserError` if fewer bytes came; nothing of it stays then.
        """
        with self._lock:
            expected = self._expected.get(song)
            if expected is None or expected.is_coming:
                return None
            expected.is_coming = True
        announcement, path = expected.announcement, self._songs.upload(song)
        name = shown_name(announcement.name)
        try:
            await _write(path, blocks, announcement.size, name)
            return self._songs.add(song, announcement.name, announcement.size, announcement.options)
        except BaseException as error:
            self._songs.remove(song)
            if isinstance(error, OSError) and is_disk_full(error):
                raise DiskFull(f"{name}: the disk is full") from None
            raise
        finally:
            with self._lock:
                self._expected.pop(song, None)

    def forget_old(self) -> None:
        """Forget what was announced an hour ago and never came."""
        with self._lock:
            now = time.monotonic()
            old = [
                song
                for song, expected in self._expected.items()
                if not expected.is_coming and now - expected.since > _FORGET_SECONDS
            ]
            for song in old:
                del self._expected[song]
        for song in old:
            self._songs.remove(song)


async def _write(path: Path, blocks: AsyncIterator[bytes], size: int, name: str) -> None:
    received = 0
    with path.open("xb") as file:
        async with contextlib.aclosing(blocks) as stream:  # type: ignore[type-var]
            async for block in stream:
                received += len(block)
                if received > size:
                    raise TooLarge(f"{name}: more bytes came than the {size} that were announced")
                file.write(block)
    if received < size:
        raise UserError(f"{name}: only {received} of {size} bytes came")
