"""`serve`, `stop` and `schedule`: commands of the flows, which are imported when they are called, and not before."""

import importlib
from typing import Any

import typer

SERVING = {
    "serve": "Start Prefect's server, a work pool, all deployments and a worker, in the background.",
    "stop": "Stop exactly what `serve` started; trainings save themselves first.",
    "schedule": "Turn the weekly retraining on, or off, on the server that `serve` started.",
}
"""These commands and their help."""


def serving_command(name: str) -> Any:
    """One of these commands."""
    app = importlib.import_module("flows.cli").serving
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
