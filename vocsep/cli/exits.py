"""How every command ends: 0, 1 (some songs failed), 2 (a user's mistake, in one line), 128 + n (signal n)."""

import contextlib
import sys
from collections.abc import Iterator

import typer

from storage.errors import UserError
from vocsep.mapping import SomeFailed
from vocsep.training.stopping import TrainingStopped


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """End the process with the code and the message of what the body raises, without a traceback where none helps."""
    try:
        yield
    except (UserError, SomeFailed) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except TrainingStopped as stopped:
        typer.echo(str(stopped), err=True)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
