"""`vocsep evaluate`."""

from typing import Any

from vocsep.cli.preprocess import DATASET
from vocsep.cli.steps import Step
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.step import check, evaluate
from vocsep.mapping import pooled
from vocsep.progress import progress_on_bar


def _run(config: EvaluateConfig) -> Any:
    with progress_on_bar("evaluate", "songs") as progress:
        return evaluate(config, progress=progress, map=pooled(config.workers))


STEP = Step(config=EvaluateConfig, check=check, run=_run, declarations=DATASET)
