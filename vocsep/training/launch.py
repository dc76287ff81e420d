"""Training in this process, or in several that torchrun starts on this machine."""

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from storage.errors import UserError
from storage.files import read_json, write_json
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from vocsep.training.config import TrainConfig
from vocsep.training.fit import TrainResult, fit
from vocsep.training.processes import is_one_of_several
from vocsep.training.stopping import TrainingStopped


def train(
    config: TrainConfig,
    store: Path,
    models: Path,
    runs: Path,
    resume: str = "auto",
    on_progress: Callable[[float], None] | None = None,
    promote: bool = True,
) -> TrainResult | None:
    """Train a model (see `vocsep.training.fit`) with as many processes as `config.devices` says.

    Raises
    ------
    UserError
        As `fit`, or if a process of several failed.
    """
    if config.devices == 1 or is_one_of_several():
        return fit(config, SpectrogramStore.open(store), ModelRegistry(models), runs, resume, on_progress, promote)
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder) / "job.json", Path(folder) / "result.json"
        paths = {"store": str(store), "models": str(models), "runs": str(runs)}
        write_json(job, {"config": config.model_dump(mode="json"), "resume": resume, "promote": promote, **paths})
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(config.devices), "-m", "vocsep.training.launch", str(job), str(answer)]
        number = _run_passing_signals(command)
        if number and not answer.is_file():
            raise TrainingStopped(str(runs), None, number)
        if not answer.is_file():
            raise UserError(f"training on {config.devices} devices failed; its messages stand above")
        return TrainResult(**read_json(answer))


def _run_passing_signals(command: list[str]) -> int:
    """Run a command to its end; SIGTERM and SIGINT go on to it. Returns the signal that came, or 0."""
    received = 0
    # A session of its own: Ctrl-C in a terminal comes here alone, and is passed on once.
    process = subprocess.Popen(command, start_new_session=True)

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = number
        process.send_signal(signal.SIGTERM)

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if is_main else ()
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.terminate()
            process.wait()
    return received


def _train_share(job: Path, answer: Path) -> None:
    """One of several processes."""
    content = read_json(job)
    result = fit(
        TrainConfig.model_validate(content["config"]),
        SpectrogramStore.open(Path(content["store"])),
        ModelRegistry(Path(content["models"])),
        Path(content["runs"]),
        content["resume"],
        promote=content["promote"],
    )
    if result is not None:
        write_json(answer, vars(result))


if __name__ == "__main__":
    try:
        _train_share(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
