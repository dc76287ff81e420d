"""How every command ends: 0, 1 (some songs failed), 2 (a user's mistake, in one line), 128 + n (signal n)."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import typer

from storage.errors import UserError
from vocsep.mapping import SomeFailed
from vocsep.training.stopping import TrainingStopped


class StoppedBySignal(BaseException):
    """The process was told to end; whatever is unfinished is cleaned up on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


def stop_on_signals() -> None:
    """Let SIGTERM and SIGHUP end what is done as errors do, unless whoever started the process had them ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        raise StoppedBySignal(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """End the process with the code and the message of what the body raises, without a traceback where none helps."""
    try:
        yield
    except (UserError, SomeFailed) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except (TrainingStopped, StoppedBySignal) as stopped:
        typer.echo(str(stopped), err=True)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
