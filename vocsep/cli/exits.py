"""How every command ends: 0, 1 (some songs failed), 2 (a user's mistake, in one line), 128 + n (signal n)."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import typer

from storage.errors import UserError, escaped
from vocsep.cli.streams import output_problem, prepare_streams
from vocsep.mapping import SomeFailed
from vocsep.training.stopping import TrainingStopped


class StoppedBySignal(BaseException):
    """The process was told to end; unfinished files are cleaned up on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


def stop_on_signals() -> None:
    """Let these signals end what is done as errors do, unless the process was started with them ignored."""
    ending = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in ending:  # a closed terminal sends two: cleaning up is not interrupted
            signal.signal(each, signal.SIG_IGN)
        raise StoppedBySignal(number)

    for number in ending:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """End the process with the code and the message of what the body raises, without a traceback where none helps."""
    prepare_streams()
    try:
        yield
        _require_printed()
    except SystemExit as end:
        if end.code in (None, 0):
            _require_printed()
        raise
    except (UserError, SomeFailed) as error:
        # One line, even with line breaks in names; those of `SomeFailed` have a line each.
        typer.echo(f"error: {escaped(str(error)) if isinstance(error, UserError) else error}", err=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except OSError as error:
        # A path that is something else than it should be, or a disk that is full: the user's to fix.
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {place}{error.strerror or error}", err=True)
        sys.exit(2)
    except (TrainingStopped, StoppedBySignal) as stopped:
        typer.echo(str(stopped), err=True)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


def _require_printed() -> None:
    if problem := output_problem():
        typer.echo(f"error: standard output: cannot be written ({problem}); everything else is done", err=True)
        sys.exit(2)
