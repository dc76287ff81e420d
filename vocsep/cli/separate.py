"""`vocsep separate`."""

from typing import Any

import typer

from vocsep.cli.steps import Step
from vocsep.mapping import pooled, serial
from vocsep.progress import progress_on_bar
from vocsep.separation.step import SeparateConfig, check, separate


def _run(config: SeparateConfig) -> Any:
    with progress_on_bar(
        "separate", "songs", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    ) as bar:
        return separate(config, progress=bar, map=serial if config.workers is None else pooled(config.workers))


STEP = Step(
    config=SeparateConfig,
    check=check,
    run=_run,
    declarations={
        "inputs": typer.Argument,
        "output": lambda: typer.Option("--output", "-o"),
        "bit_rate": lambda: typer.Option("--bit-rate", "--bitrate"),
        "threads": lambda: typer.Option("--threads", "--jobs"),
    },
)
