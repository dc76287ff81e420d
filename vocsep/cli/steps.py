"""The steps of the pipeline as commands: one definition for `vocsep STEP` and `python -m flows STEP`."""

import importlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from vocsep.cli.options import command_with_settings
from vocsep.config import Settings, load_yaml, validated
from vocsep.mapping import SomeFailed

STEPS = {
    "preprocess": "Write a dataset's spectrograms to the store; without a dataset, make and use the demo songs.",
    "train": "Train a model from the store and add it to the registry.",
    "evaluate": "Score a model on songs with known stems and write a report.",
    "separate": "Separate songs into vocals and accompaniment.",
    "compare": "Train the systems of the original analysis side by side, and say what made the difference.",
    "recipe": "Make a model from a recipe's data sets, score and describe it; takes hours, at low priority.",
    "retrain": "Add new songs, train a challenger, and promote it if it is better than the champion.",
}
"""Every step and its help."""


@dataclass(frozen=True)
class Step:
    """A step as a command.

    Attributes
    ----------
    config
        Its settings; every field is an option.
    check
        Raises `UserError` if the settings are wrong, as far as can be known before anything starts.
    run
        Does it in this process, with a progress bar; returns a result that has `lines()` for people.
    load
        What `--config` names.
    declarations
        Options that are arguments or have short names; see `command_with_settings`.
    prepare
        Completes the values that were given on the command line.
    """

    config: type[Settings]
    check: Callable[[Any], object]
    run: Callable[[Any], Any]
    load: Callable[[str], dict[str, Any]] = load_yaml
    declarations: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict


def step(name: str) -> Step:
    """The step `name`, from the module of its command."""
    found: Step = importlib.import_module(f"vocsep.cli.{name}").STEP
    return found


def step_command(name: str, run: Callable[[Step, Any], Any]) -> Any:
    """The command of a step; `run(step, config)` gives its result, None in all but one of several processes."""
    definition = step(name)

    def command(
        values: dict[str, Any],
        as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    ) -> None:
        config = validated(definition.config, definition.prepare(values), "command line")
        try:
            show(run(definition, config), as_json)
        except SomeFailed as some:
            show(some.result, as_json)
            raise

    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(name, help=STEPS[name])(
        command_with_settings(definition.config, command, load=definition.load, declarations=definition.declarations)
    )
    return typer.main.get_command(app)


def log_to_terminal() -> None:
    """Print what the library logs of its work."""
    logging.getLogger("vocsep").setLevel(logging.INFO)
    logging.basicConfig(format="%(message)s")


def show(result: Any, as_json: bool) -> None:
    """Print what a step returned."""
    if result is None:
        return
    if as_json:
        content = result.to_json() if hasattr(result, "to_json") else asdict(result)
        typer.echo(json.dumps(content, default=str, indent=1))
    else:
        typer.echo("\n".join(result.lines()))
