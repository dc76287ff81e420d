"""How a training that was told to end says so."""

import signal


class TrainingStopped(Exception):
    """The process was told to end; the run is saved and can go on."""

    def __init__(self, run: str, step: int | None, number: int) -> None:
        name = signal.Signals(number).name
        where = "" if step is None else f" after step {step}"
        super().__init__(f"stopped by {name}{where}; the same command goes on from there ({run})")
        self.signal = number
