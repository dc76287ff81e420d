"""What each of the problems costs in dB."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from vocsep.comparison.objectives import PROBLEMS, ladder, notebook_with, objective_with, project_without
from vocsep.comparison.runs import RunResult
from vocsep.models.objective_config import Objective

# An effect smaller than this says little even where all seeds agree.
SMALLEST_EFFECT_DB = 0.3


@dataclass(frozen=True)
class Effect:
    """What a change gave, in dB of validation SDR, seed by seed."""

    per_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(self.per_seed)

    @property
    def matters(self) -> bool:
        """All seeds agree on the sign, and the mean is no trifle."""
        agree = all(value > 0 for value in self.per_seed) or all(value < 0 for value in self.per_seed)
        return agree and abs(self.mean) >= SMALLEST_EFFECT_DB

    def __str__(self) -> str:
        """For people: mean, and the smallest and largest of the seeds."""
        if len(self.per_seed) == 1:
            return f"{self.mean:+.2f} dB (one seed)"
        return f"{self.mean:+.2f} dB ({min(self.per_seed):+.2f} ... {max(self.per_seed):+.2f})"


class Scores:
    """Final validation SDR and losses of all runs, by objective."""

    def __init__(self, results: Sequence[RunResult]) -> None:
        self._runs: dict[Objective, dict[int, RunResult]] = {}
        for result in results:
            self._runs.setdefault(result.objective, {})[result.seed] = result

    def of(self, objective: Objective) -> list[RunResult]:
        """Runs that reached their end, in the order of their seeds."""
        return [result for _, result in sorted(self._runs.get(objective, {}).items()) if result.failed is None]

    def effect(self, before: Objective, after: Objective) -> Effect | None:
        """What going from one objective to another gave with each seed; None where no seed has both."""
        first, second = ({result.seed: result.sdr_db for result in self.of(one)} for one in (before, after))
        shared = sorted(first.keys() & second.keys())
        return Effect(tuple(second[seed] - first[seed] for seed in shared)) if shared else None


def problem_effects(scores: Scores) -> dict[str, dict[str, Effect | None]]:
    """For each problem: what solving it alone gives the project, bringing it alone the notebook, and its rung."""
    project, notebook = objective_with(frozenset(PROBLEMS)), objective_with(frozenset())
    rungs = list(ladder().values())
    return {
        problem: {
            "solved alone in the project": scores.effect(project, project_without(problem)),
            "brought alone into the notebook": scores.effect(notebook, notebook_with(problem)),
            "on the ladder": scores.effect(rungs[number], rungs[number + 1]),
        }
        for number, problem in enumerate(PROBLEMS)
    }
