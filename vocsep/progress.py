"""Progress bars: live in a terminal or notebook, a line every ten seconds in a log."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm.auto import tqdm

Progress = Callable[[float, float], None]
"""Called with how much is done, of how much: songs, seconds or bytes, as the caller defines."""

LOG_INTERVAL_SECONDS = 10.0
SHOW_AFTER_SECONDS = 0.3


def progress_bar(total: float, description: str, unit: str, **options: Any) -> "tqdm[Any]":
    """A tqdm bar on standard error with count, rate and time left; close it, or use it in a `with` statement."""
    live = sys.stderr.isatty()
    columns = _terminal_columns()
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        dynamic_ncols=columns > 0,
        ncols=None if columns else 79 if live else 110,
        mininterval=0.1 if live else LOG_INTERVAL_SECONDS,
        smoothing=0.1,
        delay=SHOW_AFTER_SECONDS,
        **options,
    )


@contextlib.contextmanager
def progress_on_bar(description: str, unit: str, **options: Any) -> Iterator[Progress]:
    """A `Progress` that a bar shows."""
    with progress_bar(0, description, unit, **options) as bar:

        def show(done: float, total: float) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _terminal_columns() -> int:
    """Width of the terminal on standard error; 0 without one, and for one that does not say (in containers)."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0
