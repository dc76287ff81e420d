"""`vocsep train`."""

from typing import Any

from vocsep.cli.steps import Step, log_to_terminal
from vocsep.training.run_folder import with_settings_of
from vocsep.training.settings_files import load_settings
from vocsep.training.step import TrainJob, check, train


def _run(job: TrainJob) -> Any:
    log_to_terminal()
    return train(job)


def _prepare(values: dict[str, Any]) -> dict[str, Any]:
    """With `--resume FOLDER`, the settings are those of the run, and over them those that are given."""
    return values | {"training": with_settings_of(values.get("resume", "auto"), values.get("training", {}))}


STEP = Step(config=TrainJob, check=check, run=_run, load=load_settings, prepare=_prepare)
