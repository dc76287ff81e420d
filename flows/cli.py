"""Command line of the flows; several may be named one after the other: `python -m flows preprocess train evaluate`."""

import functools
import importlib
import logging
import os
import sys
from typing import Annotated, Any

import typer

from flows.environment import set_defaults
from storage.calling import IN_CLONE, call
from vocsep.cli.exits import exit_codes
from vocsep.cli.lazy import lazy_group
from vocsep.cli.serving import SERVING, serving_command
from vocsep.cli.steps import STEPS, Step, step_command
from vocsep.cores import keep_algebra_to_one_thread
from vocsep.memory import share_memory_among_threads
from vocsep.paths import PREFECT, SERVE

OTHERS = SERVING | {"eval": ""}
_SEPARATE = call("separate INPUT=song.mp3", "separate song.mp3")
NEXT = {
    "preprocess": [f"next: {call('train', 'train')}, or look inside with: vocsep store info"],
    "train": [
        "real runs: MUSDB18 (MUSDB_PATH=...), at least an hour (MAX_MINUTES=60), a GPU if there is one",
        f"next: {call('eval', 'evaluate')}, or separate a song with: {_SEPARATE}",
    ],
    "evaluate": [f"next: {_SEPARATE}"],
}
"""What to do after a step."""

serving = typer.Typer()


def _load(name: str) -> Any:
    name = {"eval": "evaluate"}.get(name, name)
    if name in STEPS:
        return step_command(name, functools.partial(_run, name))
    return serving_command(name)


app = typer.Typer(
    cls=lazy_group(STEPS | OTHERS, _load),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _flows() -> None:
    """Run vocsep's Prefect flows. Several may be named in one call: preprocess train evaluate."""


def _run(name: str, step: Step, config: Any) -> Any:
    """Check the settings, then run the flow; the first one of a process starts a server unless the settings name one.

    (Prefect would start one too, but one that outlives this process if it is killed.)
    """
    step.check(config)
    flow = getattr(importlib.import_module(f".{name}", __package__), name)
    keep_terminal_for_progress()
    from prefect.settings import PREFECT_API_URL

    from flows.serving.embedded import own_server, using

    if PREFECT_API_URL.value():
        return flow(config)
    announce_server()
    with using(own_server(), has_ui=False):
        return flow(config)


@functools.cache
def keep_terminal_for_progress() -> None:
    """Leave what Prefect tells of every run and task to its UI: in the terminal there are progress bars.

    Warnings, what vocsep tells itself, and the address of a run stay.
    """
    from prefect.logging.handlers import PrefectConsoleHandler

    def is_of_use(record: logging.LogRecord) -> bool:
        for_terminal = not getattr(record, "send_to_api", True)
        return for_terminal or record.levelno >= logging.WARNING or not record.name.startswith("prefect")

    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(is_of_use)


@functools.cache
def announce_server() -> None:
    """Say, once in a process, what the first flow is waiting for."""
    typer.echo("Prefect: starting its embedded server, 10-20 s (set PREFECT_API_URL to use a running one)", err=True)


@serving.command("schedule", help=SERVING["schedule"])
def schedule(off: Annotated[bool, typer.Option("--off", help="Turn it off.")] = False) -> None:
    """Turn the weekly retraining on or off."""
    set_defaults()
    from flows.serving import daemon

    typer.echo(daemon.set_schedule(active=not off))


@serving.command("serve", help=SERVING["serve"])
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server, on this machine only.")] = 4200,
) -> None:
    """Start all that deployments need."""
    os.environ.setdefault("PREFECT_HOME", str(PREFECT.absolute()))
    set_defaults()
    from flows.serving import daemon

    typer.echo("Starting Prefect's server, the deployments and a worker, about half a minute ...")
    address = daemon.serve(port)
    typer.echo(f"serving: {address} (runs, schedules, artifacts); logs in {SERVE}")
    typer.echo(f"  from another folder: export PREFECT_API_URL={address}/api")
    prefect = ".venv/bin/prefect" if IN_CLONE else "prefect"
    typer.echo(f"  next: {prefect} deployment run 'preprocess/local' --watch")
    on = daemon.is_scheduled(port)
    state, other = ("on", "off") if on else ("off", "on")
    order = call("unschedule", "schedule --off") if on else call("schedule", "schedule")
    typer.echo(f"  the weekly retraining is {state}; turn it {other} with: {order}")
    typer.echo(f"  stop all of it with: {call('stop', 'stop')}")


@serving.command("stop", help=SERVING["stop"])
def stop() -> None:
    """End what `serve` started."""
    set_defaults()
    from flows.serving import daemon

    typer.echo("stopped" if daemon.stop() else "nothing was served from this folder")


def main() -> None:
    """Run the steps that are named, one after the other."""
    share_memory_among_threads()
    keep_algebra_to_one_thread()
    with exit_codes():
        set_defaults()
        for arguments in steps(sys.argv[1:]):
            run_step(arguments)


def steps(arguments: list[str]) -> list[list[str]]:
    """Split a command line at the names of the steps; a word after an option is its value.

    >>> steps(["preprocess", "evaluate", "--split", "train"])
    [['preprocess'], ['evaluate', '--split', 'train']]
    """
    found: list[list[str]] = [[]]
    for index, argument in enumerate(arguments):
        is_value = index > 0 and arguments[index - 1].startswith("-") and arguments[index - 1] not in ("-h", "--help")
        if argument in STEPS | OTHERS and not is_value and found[-1]:
            found.append([])
        found[-1].append(argument)
    return found


def run_step(arguments: list[str]) -> None:
    """Run one step; ends the process only if the command line was wrong."""
    try:
        app(args=arguments)
    except SystemExit as end:
        if end.code not in (0, None):
            raise
    if "--json" not in arguments and not {"-h", "--help"} & {*arguments}:
        for line in NEXT.get(arguments[0] if arguments else "", ()):
            typer.echo(f"  {line}")
