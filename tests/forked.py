"""Commands in separate processes that start at once: forked from one that has imported what they need."""

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.preloaded"])


def forked(target: Callable[..., object], *arguments: Any) -> ForkServerProcess:
    """A process of a function, not started yet."""
    with contextlib.chdir(ROOT):  # a test's folder has nothing to preload
        forkserver.ensure_running()
    return _processes.Process(target=target, args=arguments)


class Forked:
    """`main` of a module as a program with these arguments, in `folder`; used as `subprocess.Popen` is."""

    def __init__(self, module: str, *arguments: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.args = [module, *arguments]
        self._place = tempfile.TemporaryDirectory()
        self._printed = [Path(self._place.name, name) for name in ("output", "errors")]
        self._process = forked(_run, module, arguments, str(folder), dict(environment), *map(str, self._printed))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self) -> tuple[str, str]:
        """What it printed, on stdout and stderr, when it has ended."""
        self._process.join(600)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"still there after 600 s: {self.args}")
        output, errors = (path.read_text() if path.exists() else "" for path in self._printed)
        return output, errors

    def close(self) -> None:
        """End it, and forget what it printed."""
        self.kill()
        self._process.join()
        self._place.cleanup()


def run_forked(
    module: str, *arguments: str, folder: Path, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """What `main` of a module does as a program with these arguments, in `folder`."""
    with contextlib.closing(Forked(module, *arguments, folder=folder, environment=environment)) as command:
        output, errors = command.communicate()
        assert command.returncode is not None
        return subprocess.CompletedProcess(command.args, command.returncode, output, errors)


def _run(
    module: str, arguments: tuple[str, ...], folder: str, environment: dict[str, str], output: str, errors: str
) -> None:
    gc.freeze()  # what was imported is no garbage, and need not be looked through
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # As in a terminal: what a shell starts in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()
