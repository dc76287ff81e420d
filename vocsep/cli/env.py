"""`vocsep env`: what belongs in a bug report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vocsep.cli.main import OTHERS
from vocsep.paths import MODELS, STORE

app = typer.Typer()


@app.command(help=OTHERS["env"])
def env(
    models: Annotated[Path, typer.Option(help="Model registry.")] = MODELS,
    store: Annotated[Path, typer.Option(help="Spectrogram store.")] = STORE,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say what this set-up is made of; no secrets, and the home folder is `~`."""
    from vocsep.doctor.environment import as_lines, environment

    found = environment(models, store)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(as_lines(found)))
