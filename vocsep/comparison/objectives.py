"""Objectives between the project's and the notebook's."""

from pathlib import Path

from vocsep.comparison.config import ComparisonConfig
from vocsep.config import validated
from vocsep.models.objective_config import InputName, Objective
from vocsep.training.config import TrainConfig
from vocsep.training.settings_files import load_settings

# The differences between project and notebook, in the order in which the ladder removes them.
PROBLEMS = ("domain", "bins", "loss and target", "log normalization", "initial bias")


def objective_with(problems: frozenset[str]) -> Objective:
    """The notebook's objective with some of `PROBLEMS`; with all of them it is the project's."""
    inputs: dict[tuple[bool, bool], InputName] = {
        (False, False): "raw",
        (True, False): "log",
        (False, True): "raw-unit",
        (True, True): "log-unit",
    }
    return Objective(
        input=inputs["domain" in problems, "log normalization" in problems],
        output="mask",
        target="oracle" if "loss and target" in problems else "source",
        loss="l1" if "loss and target" in problems else "mse",
        bins="all" if "bins" in problems else "even",
        bias=-0.4 if "initial bias" in problems else None,
    )


def ladder() -> dict[str, Objective]:
    """From the project to the notebook, one problem less on every rung."""
    rungs = {"project": objective_with(frozenset(PROBLEMS))}
    for number, problem in enumerate(PROBLEMS, start=1):
        rungs[f"- {problem}"] = objective_with(frozenset(PROBLEMS[number:]))
    return rungs


def project_without(problem: str) -> Objective:
    """The project with one of its problems solved."""
    return objective_with(frozenset(PROBLEMS) - {problem})


def notebook_with(problem: str) -> Objective:
    """The notebook with one of the project's problems."""
    return objective_with(frozenset({problem}))


def objectives(config: ComparisonConfig) -> dict[str, Objective]:
    """All objectives to train, by name; equal ones are listed once."""
    named = {Path(name).stem: validated(TrainConfig, load_settings(name), name).objective for name in config.systems}
    if config.ladder:
        rungs = list(ladder().values())
        named |= {f"project - {' - '.join(PROBLEMS[:number])}": rungs[number] for number in range(len(rungs))}
        named |= {f"project - {problem}": project_without(problem) for problem in PROBLEMS}
        named |= {f"notebook + {problem}": notebook_with(problem) for problem in PROBLEMS}
    once: dict[Objective, str] = {}
    for name, objective in named.items():
        once.setdefault(objective, name)
    return {name: objective for objective, name in once.items()}
