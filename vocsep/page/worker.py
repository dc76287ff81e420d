"""The process that separates the page's songs, one after the other; the model stays loaded between them."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from storage.errors import UserError
from storage.files import remove
from vocsep.cores import usable_threads
from vocsep.models.registry import open_registry
from vocsep.page.options import TakeOptions
from vocsep.page.songs import FILES, LISTENING

# More would take memory (150 MB each) and the core that the page is served on.
_MOST_THREADS = 2
_NICENESS = 5
_PROGRESS_SECONDS = 0.1


def work(connection: Connection, models: Path) -> None:
    """Separate what comes in until the connection ends.

    A job is `{"name": ..., "upload": ..., "folder": ..., "options": {...}}`; what goes back are pairs: `progress` with
    the seconds that are done, of how many, and then `done` with fields of a `Take`, or `failed` with one line.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the server, which ends this process
    os.nice(_NICENESS)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        upload, folder = Path(job["upload"]), Path(job["folder"])
        try:
            connection.send(("done", _separate(connection, upload, folder, TakeOptions(**job["options"]), models)))
        except BrokenPipeError:  # the server is gone
            return
        except UserError as error:
            connection.send(("failed", _shown(str(error), job["name"], upload, folder)))
        except Exception as error:  # a song that breaks the program costs the others nothing
            line = f"{type(error).__name__}: {error}".partition("\n")[0]
            connection.send(("failed", _shown(line, job["name"], upload, folder)))


def _separate(connection: Connection, upload: Path, folder: Path, options: TakeOptions, models: Path) -> dict[str, Any]:
    from vocsep.audio.reading import audio_info
    from vocsep.page.listening import Heard
    from vocsep.separation.cache import cached_separator
    from vocsep.separation.excerpt import excerpt_info
    from vocsep.separation.files import separate_file

    told = 0.0

    def progress(done: float, total: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _PROGRESS_SECONDS:
            told = now
            connection.send(("progress", (done, total)))

    remove(folder)  # what a killed run left
    folder.mkdir(parents=True)
    settings = options.settings()
    info = excerpt_info(audio_info(upload), settings.start, settings.duration)
    model = open_registry(models).open(options.model)
    separator = cached_separator(models, settings, min(_MOST_THREADS, usable_threads()))
    heard = Heard(separator, info, folder / LISTENING)
    connection.send(("progress", (0.0, info.seconds)))
    result = separate_file(upload, folder / FILES, heard, settings, progress)
    if heard.sound is None:
        raise UserError(f"{upload}: nothing could be separated")
    note = f"{result.clipped_samples} samples beyond full scale were cut off" if result.clipped_samples else ""
    return {
        "model": f"version {model.version}" if model.version is not None else "bundled",
        "seconds": result.seconds,
        "wall_seconds": result.wall_seconds,
        "files": {stem: path.name for stem, path in result.outputs.items()},
        "note": note,
        "sound": heard.sound.model_dump(),
    }


def _shown(line: str, name: str, upload: Path, folder: Path) -> str:
    """An error in the words of the page: the song by its name, no paths, no options of the command line."""
    for path in (upload, folder / FILES):
        line = line.replace(f"{path}/", "").replace(str(path), name)
    return line.replace("--accept-damaged separates", "'damaged files too' separates")
