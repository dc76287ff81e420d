"""`vocsep recipe`."""

from typing import Any

import typer

from vocsep.cli.steps import Step, log_to_terminal
from vocsep.mapping import pooled
from vocsep.progress import progress_on_bar
from vocsep.recipes.step import RecipeConfig, check, make_model
from vocsep.sessions import at_low_priority


def _run(config: RecipeConfig) -> Any:
    log_to_terminal()
    # It takes hours.
    with at_low_priority(), progress_on_bar("songs", "songs") as progress:
        return make_model(config, progress=progress, map=pooled())


STEP = Step(config=RecipeConfig, check=check, run=_run, declarations={"recipe": typer.Argument})
