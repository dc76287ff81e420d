"""How a training is stopped, and how it says so."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingStopped(Exception):
    """The process was told to end; the run is saved and can resume."""

    def __init__(self, run: str, step: int | None, number: int) -> None:
        name = signal.Signals(number).name
        where = "" if step is None else f" after step {step}"
        super().__init__(f"stopped by {name}{where}; the same command resumes from there ({run})")
        self.signal = number


@contextmanager
def received_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT that came to this process, in place of what they do; a second one does that."""
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT) if is_main}

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, handlers[signal.Signals(number)])

    for number in handlers:
        signal.signal(number, on_signal)
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
