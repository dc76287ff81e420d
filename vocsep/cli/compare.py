"""`vocsep compare`."""

from typing import Any

from vocsep.cli.steps import Step, log_to_terminal
from vocsep.comparison.step import CompareConfig, check, compare


def _run(config: CompareConfig) -> Any:
    log_to_terminal()
    return compare(config)


STEP = Step(config=CompareConfig, check=check, run=_run)
