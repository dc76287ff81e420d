"""The songs of the page: a folder each, with the upload, the stems of every take, and a record of both.

`<folder>/<id>/{song.json,upload,<take>/{files,listening}/...}`. Every name in it is made here: what a visitor calls a
song is written in `song.json` and is no path.
"""

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from storage.errors import UserError, one_line
from storage.files import read_json, remove, write_json
from vocsep.page.options import TakeOptions
from vocsep.page.records import Song, Take

RECORD, UPLOAD, FILES, LISTENING = "song.json", "upload", "files", "listening"
PEAKS = "peaks.json"
MOST_SONGS = 500
MOST_TAKES = 20
KEEP_SECONDS = 86_400.0
MOST_NAME = 200

_ID = re.compile(r"[0-9a-f]{16}")


def shown_name(name: str) -> str:
    """What a song is called on the page: the last part of what its owner calls it, in one line of letters."""
    last = re.split(r"[/\\]", name)[-1]
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in last).split())
    return text[:MOST_NAME] or "unnamed"


class Songs:
    """All songs of a folder, in memory and on the disk; every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._songs: dict[str, Song] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            entries = sorted(entry for entry in folder.iterdir() if _ID.fullmatch(entry.name))
        except OSError as error:
            raise one_line(folder, "used for the page", error) from None
        for entry in entries:
            try:
                song = Song.model_validate(read_json(entry / RECORD))
                if song.id != entry.name:
                    raise ValueError
            except (OSError, ValueError, ValidationError):
                remove(entry)  # an upload that never ended, or a record that is none
                continue
            for take in song.takes:
                if take.state == "running":
                    take.state = "waiting"
            self._songs[song.id] = song

    def listed(self) -> list[Song]:
        """Copies of all songs, the newest first."""
        with self._lock:
            found = [song.model_copy(deep=True) for song in self._songs.values()]
        return sorted(found, key=lambda song: (-song.created, song.id))

    def get(self, song: str) -> Song | None:
        """A copy of a song's record."""
        with self._lock:
            found = self._songs.get(song)
            return found.model_copy(deep=True) if found else None

    def new_id(self) -> str:
        """An id whose folder exists, for an upload."""
        with self._lock:
            waiting = sum(1 for entry in self.folder.iterdir() if _ID.fullmatch(entry.name))
            if waiting >= MOST_SONGS:
                raise UserError(f"there are {waiting} songs already; remove some first")
        song = secrets.token_hex(8)
        (self.folder / song).mkdir()
        return song

    def add(self, song: str, name: str, size: int, options: TakeOptions) -> Song:
        """Make an upload that is whole a song with a first take."""
        record = Song(
            id=song,
            name=shown_name(name),
            size=size,
            created=time.time(),
            takes=[Take(id=1, options=options, asked=time.time())],
        )
        with self._lock:
            self._songs[song] = record
            self._write(record)
            return record.model_copy(deep=True)

    def add_take(self, song: str, options: TakeOptions) -> Take:
        """Have a song separated once more.

        Raises `UserError` if there is no such song, or it has enough takes.
        """
        with self._lock:
            record = self._songs.get(song)
            if record is None:
                raise UserError("the song is no longer there")
            if len(record.takes) >= MOST_TAKES:
                raise UserError(f"{record.name}: has {MOST_TAKES} takes; remove some first")
            take = Take(id=max((one.id for one in record.takes), default=0) + 1, options=options, asked=time.time())
            record.takes.append(take)
            self._write(record)
            return take.model_copy(deep=True)

    def update(self, song: str, take: int, change: Callable[[Take], None]) -> None:
        """Change a take that may be gone by now."""
        with self._lock:
            record = self._songs.get(song)
            found = record.take(take) if record else None
            if record and found:
                change(found)
                self._write(record)

    def remove_take(self, song: str, take: int) -> None:
        """Delete a take; with the last one the song goes."""
        with self._lock:
            record = self._songs.get(song)
            if record is None:
                return
            record.takes = [one for one in record.takes if one.id != take]
            if not record.takes:
                self.remove(song)
                return
            self._write(record)
        remove(self.take_folder(song, take))

    def remove(self, song: str) -> None:
        """Delete a song and all that was made of it, or an upload that did not end."""
        with self._lock:
            self._songs.pop(song, None)
        if _ID.fullmatch(song):
            remove(self.folder / song)

    def next_waiting(self) -> tuple[Song, Take] | None:
        """Copies of the take that waits longest and of its song."""
        waiting = [(song, take) for song in self.listed() for take in song.takes if take.state == "waiting"]
        return min(waiting, key=lambda pair: (pair[1].asked, pair[0].id, pair[1].id), default=None)

    def old(self, now: float) -> list[str]:
        """Songs that were uploaded longer than a day ago."""
        with self._lock:
            return [song.id for song in self._songs.values() if now - song.created > KEEP_SECONDS]

    def upload(self, song: str) -> Path:
        """Where the uploaded file is."""
        return self.folder / song / UPLOAD

    def take_folder(self, song: str, take: int) -> Path:
        """Where everything is that was made for a take."""
        return self.folder / song / str(take)

    def _write(self, record: Song) -> None:
        with contextlib.suppress(OSError):  # on a full disk the page continues with what it knows
            write_json(self.folder / record.id / RECORD, record.model_dump(mode="json"))
