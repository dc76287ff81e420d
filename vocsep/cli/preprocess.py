"""`vocsep preprocess`."""

from typing import Any

import typer

from vocsep.cli.steps import Step
from vocsep.mapping import pooled
from vocsep.preprocessing.step import PreprocessConfig, check, preprocess
from vocsep.progress import progress_on_bar

DATASET = {"dataset": lambda: typer.Option(envvar="MUSDB_PATH")}


def _run(config: PreprocessConfig) -> Any:
    with progress_on_bar("preprocess", "songs") as progress:
        return preprocess(config, progress=progress, map=pooled(config.workers))


STEP = Step(config=PreprocessConfig, check=check, run=_run, declarations=DATASET)
