"""Standard streams that no name and no full disk can break: what is done is done, whether it can be printed or not."""

import contextlib
import errno
import io
import os
import sys
from typing import TextIO


class _Output(io.TextIOWrapper):
    """Standard output; that it cannot be written stops nothing, and is told at the end."""

    problem = ""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # What waits to be written goes nowhere, or the end of the process would try it again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        if error.errno == errno.EPIPE:  # as of `| head`, which has seen enough
            raise error
        self.problem = str(error.strerror)


class _Messages(io.TextIOWrapper):
    """Standard error: messages that cannot be written stop nothing."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Open standard streams that are closed, and let the others show any name, with escapes for unknown letters."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else a file that is opened next would be taken for the stream.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _robust(sys.stdout, _Output, 1)
    sys.stderr = _robust(sys.stderr, _Messages, 2)


def output_problem() -> str:
    """Why something that was printed could not be written; empty if all could."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    return sys.stdout.problem if isinstance(sys.stdout, _Output) else ""


def _robust(stream: TextIO | None, kind: type[io.TextIOWrapper], number: int) -> TextIO:
    if stream is None:
        return open(number, "w", encoding="utf-8", closefd=False)
    if type(stream) is not io.TextIOWrapper:  # somebody else's
        return stream
    encoding, by_lines = stream.encoding, stream.line_buffering
    return kind(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=by_lines)
