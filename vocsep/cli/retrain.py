"""`vocsep retrain`."""

from typing import Any

from vocsep.cli.preprocess import DATASET
from vocsep.cli.steps import Step, log_to_terminal
from vocsep.mapping import pooled
from vocsep.progress import progress_on_bar
from vocsep.retraining.step import RetrainConfig, check, retrain
from vocsep.training.settings_files import load_settings


def _run(config: RetrainConfig) -> Any:
    log_to_terminal()
    with progress_on_bar("songs", "songs") as progress:
        return retrain(config, progress=progress, map=pooled(config.preprocessing.workers))


STEP = Step(config=RetrainConfig, check=check, run=_run, load=load_settings, declarations=DATASET)
