"""`vocsep compare`."""

from vocsep.cli.steps import Step
from vocsep.comparison.step import CompareConfig, check, compare
from vocsep.config import load_yaml
from vocsep.progress import bar


def _run(config: CompareConfig) -> object:
    with bar("compare", "runs") as progress:
        return compare(config, progress=progress)


STEP = Step(config=CompareConfig, check=check, run=_run, load=load_yaml)
