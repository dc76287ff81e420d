"""Commands in processes of their own that are there at once: forked from one that has imported what they need."""

import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

processes = multiprocessing.get_context("forkserver")
# The first optimizer imports torch._dynamo, for seconds.
processes.set_forkserver_preload(["vocsep.cli.main", "vocsep.training.step", "vocsep.evaluation.step", "torch._dynamo"])


def run_forked(
    module: str, *arguments: str, folder: Path, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """What `main` of a module does as a program with these arguments, in `folder`."""
    with tempfile.TemporaryDirectory() as place:
        printed = [Path(place, name) for name in ("output", "errors")]
        given = (module, arguments, str(folder), dict(environment), *map(str, printed))
        process = processes.Process(target=_run, args=given)
        process.start()
        process.join(600)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"still there after 600 s: {module} {arguments}")
        output, errors = (path.read_text() for path in printed)
        return subprocess.CompletedProcess([module, *arguments], process.exitcode, output, errors)


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
