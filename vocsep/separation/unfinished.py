"""Where unfinished files are, and how they are deleted after errors and killed runs."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from storage.errors import one_line

_PREFIX = ".vocsep-unfinished-"


@contextlib.contextmanager
def unfinished_folder(output: Path) -> Iterator[Path]:
    """A folder in `output` that is gone afterwards; those that killed runs left go as well.

    What the system refuses, in the body too, becomes a `UserError` that names `output`.
    """
    try:
        _sweep(output)
        with _locked_folder(output) as folder:
            yield folder
    except OSError as error:
        raise one_line(output, "written", error) from None


@contextlib.contextmanager
def made_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Make folders for the body; those of them that it leaves empty go again."""
    made: list[Path] = []
    try:
        for folder in folders:
            try:
                made += reversed([entry for entry in (folder, *folder.parents) if not entry.exists()])
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise one_line(folder, "written", error) from None
        yield
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _locked_folder(output: Path) -> Iterator[Path]:
    """A new folder whose lock is held: the system lets go of it however this process ends."""
    while True:
        folder = output / f"{_PREFIX}{secrets.token_hex(8)}"
        folder.mkdir()
        with contextlib.suppress(FileNotFoundError):  # another run took it for a leftover just now
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.exists():
                break
            os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _sweep(output: Path) -> None:
    """Delete what killed runs left in a folder: their locks are free."""
    for folder in output.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)
