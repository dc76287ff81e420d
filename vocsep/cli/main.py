"""The `vocsep` command: a list of commands, each in its own file, imported when it is called."""

import importlib
from typing import Annotated, Any

import typer

from vocsep.cli.exits import exit_codes, stop_on_signals
from vocsep.cli.lazy import lazy_group
from vocsep.cli.serving import SERVING, serving_command
from vocsep.cli.steps import STEPS, step_command
from vocsep.cores import keep_algebra_to_one_thread
from vocsep.memory import share_memory_among_threads

OTHERS = {
    "demo-data": "Make the demo dataset: computer-made songs in the layout of MUSDB18.",
    "store": "Inspect, verify, repair and copy a spectrogram store.",
    "models": "List, compare, promote and delete trained models.",
    "score": "Score any estimates with BSSEval v4: no dataset, model or store needed.",
    "screen": "Find the songs with singing in a folder of instrumentals, by listening with a model.",
    "doctor": "Check songs, objective and network: why a loss does not fall.",
    "env": "Print what belongs in a bug report: versions, machine, model and store.",
    "page": "Separate songs and listen to the stems in step, in a browser on this machine.",
    "export": "Export a model for other programs, or to separate without torch.",
}


def _load(name: str) -> Any:
    if name in STEPS:
        return step_command(name, lambda step, config: step.run(config))
    if name in SERVING:
        return serving_command(name)
    module = importlib.import_module(f"vocsep.cli.{name.replace('-', '_')}")
    return typer.main.get_command(module.app)


app = typer.Typer(
    cls=lazy_group(STEPS | OTHERS | SERVING, _load),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vocsep {version('vocsep')}")
        raise typer.Exit


@app.callback()
def _vocsep(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Separate songs into vocals and accompaniment, and train the model that does it."""


def main() -> None:
    """Run the command line."""
    share_memory_among_threads()
    keep_algebra_to_one_thread()
    with exit_codes():
        stop_on_signals()
        app()
