"""One song after the other: what waits is separated by a separate process, which can be ended at any time."""

import contextlib
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from storage.files import remove
from vocsep.page.records import Song, Take
from vocsep.page.songs import Songs
from vocsep.page.worker import work

_LOOK_SECONDS = 0.1
_END_SECONDS = 5.0

Key = tuple[str, int]
"""A song's id and the number of a take."""


@dataclass(frozen=True)
class Separating:
    """How far the take is that is being separated: seconds of the song, of how many, and seconds since it began."""

    done: float
    total: float
    elapsed: float

    @property
    def speed(self) -> float | None:
        """In times real time, once it can be told."""
        return self.done / self.elapsed if self.done and self.elapsed > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until the end, once they can be told."""
        return max(0.0, self.total - self.done) / self.speed if self.speed else None


class Queue:
    """Separates the takes that wait, in the order in which they were asked for."""

    def __init__(self, songs: Songs, models: Path) -> None:
        self._songs = songs
        self._models = models
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._is_ended = False
        self._running: Key | None = None
        self._unwanted: Key | None = None
        self._progress: Separating | None = None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="separations", daemon=True)

    def start(self) -> None:
        """Begin with what waits."""
        self._thread.start()

    def end(self) -> None:
        """End the running separation; the next start of the page begins it again."""
        self._is_ended = True
        self._wake.set()
        self._thread.join()

    def look(self) -> None:
        """There is something new that waits."""
        self._wake.set()

    def separating(self) -> tuple[Key, Separating | None] | None:
        """Which take is being separated, and how far it is, once that is known."""
        running = self._running
        return (running, self._progress) if running else None

    def remove(self, song: str, take: int) -> None:
        """Delete a take, waiting, separated or not; what is being separated is ended first."""
        self._let_go((song, take))
        self._songs.remove_take(song, take)

    def remove_song(self, song: str) -> None:
        """Delete a song with all its takes."""
        record = self._songs.get(song)
        for take in record.takes if record else ():
            self._let_go((song, take.id))
            self._songs.remove_take(song, take.id)
        self._songs.remove(song)

    def _let_go(self, key: Key) -> None:
        with self._idle:
            if self._running == key:
                self._unwanted = key
                self._idle.wait_for(lambda: self._running != key)

    def _run(self) -> None:
        try:
            while not self._is_ended:
                with self._idle:
                    waiting = self._songs.next_waiting()
                    if waiting:
                        self._running, self._progress = (waiting[0].id, waiting[1].id), None
                if waiting is None:
                    self._wake.wait()
                    self._wake.clear()
                    continue
                try:
                    self._separate(*waiting)
                finally:
                    with self._idle:
                        self._running = self._unwanted = self._progress = None
                        self._idle.notify_all()
        finally:
            self._end_process()

    def _separate(self, song: Song, take: Take) -> None:
        key, folder = (song.id, take.id), self._songs.take_folder(song.id, take.id)
        self._songs.update(*key, _started)
        job = {
            "name": song.name,
            "upload": str(self._songs.upload(song.id)),
            "folder": str(folder),
            "options": take.options.model_dump(),
        }
        connection = self._connected()
        begun: float | None = None
        try:
            connection.send(job)
            while True:
                while not connection.poll(_LOOK_SECONDS):
                    if self._is_ended or self._unwanted == key:
                        self._end_process()
                        remove(folder)
                        return
                kind, content = connection.recv()
                if kind == "progress":
                    begun = begun or time.monotonic()
                    done, total = content
                    self._progress = Separating(done, total, time.monotonic() - begun)
                    continue
                break
        except (EOFError, OSError):
            self._end_process()
            kind, content = "failed", f"{song.name}: the separation died (is there enough memory?)"
        if kind == "failed":
            remove(folder)
        self._songs.update(*key, _finished(content) if kind == "done" else _failed(content))

    def _connected(self) -> Connection:
        """The connection to a process that lives; it is started where there is none."""
        if self._connection is None or self._process is None or not self._process.is_alive():
            self._end_process()
            # For the process alone: with an arena for each of its threads it keeps 110 MB more.
            os.environ.setdefault("MALLOC_ARENA_MAX", "2")
            context = multiprocessing.get_context("spawn")
            self._connection, other = context.Pipe()
            self._process = context.Process(target=work, args=(other, self._models), daemon=True)
            self._process.start()
            other.close()  # so that this end hears when the process ends
        return self._connection

    def _end_process(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join(_END_SECONDS)
            with contextlib.suppress(ValueError):
                self._process.kill()
                self._process.join()
        self._connection = self._process = None


def _started(take: Take) -> None:
    take.state, take.error = "running", ""


def _failed(line: str) -> Any:
    def change(take: Take) -> None:
        take.state, take.error = "failed", line

    return change


def _finished(fields: dict[str, Any]) -> Any:
    def change(take: Take) -> None:
        done = Take.model_validate(take.model_dump() | fields)
        for name in fields:
            setattr(take, name, getattr(done, name))
        take.state = "done"

    return change
