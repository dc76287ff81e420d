"""The report of a comparison: what every system reached, and a plain answer for each of the five problems."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from storage.files import write_atomically, write_json
from storage.store import SpectrogramStore
from vocsep.comparison.config import ComparisonConfig
from vocsep.comparison.effects import Effect, Scores, problem_effects
from vocsep.comparison.objectives import PROBLEMS, ladder, objective_with, objectives
from vocsep.comparison.plots import plot_curves, plot_problems
from vocsep.comparison.reference_lines import draw_estimates, reference_lines
from vocsep.comparison.runs import Run, RunResult, folder_of
from vocsep.models.objective_config import Objective
from vocsep.tables import decibels, markdown_table, plain
from vocsep.training.config import TrainConfig
from vocsep.training.settings_files import load_settings

REPORT_NAME, SUMMARY_NAME = "report.md", "summary.json"


def write_comparison(
    output: Path, config: ComparisonConfig, store: SpectrogramStore, results: Sequence[RunResult]
) -> dict[str, Any]:
    """Write `report.md`, pictures and `summary.json` into `output`; returns the summary."""
    scores = Scores(results)
    systems = {Path(name).stem: TrainConfig.model_validate(load_settings(name)).objective for name in config.systems}
    lines = reference_lines(config.training(Objective(), 0), store)
    curves = {name: scores.of(objective) for name, objective in systems.items() if scores.of(objective)}
    plot_curves(output / "curves.png", curves, lines)
    models = {
        name: folder_of(Run(name, config.training(systems[name], 0)), store, output) / "models" for name in curves
    }
    song = draw_estimates(output / "spectrograms.png", store, models)
    table = _system_table(curves)
    answers = _answers(scores) if config.ladder else []
    parts = [
        "# Why the loss falls, or does not",
        _setting(config, store, lines, results),
        markdown_table(table),
        _NOTES,
        f"![Validation SDR and training loss](curves.png)\n\n![Spectrograms of {plain(song)}](spectrograms.png)",
    ]
    if config.ladder:
        effects = problem_effects(scores)
        plot_problems(output / "problems.png", effects)
        parts += [
            "## From project to notebook\n\n" + markdown_table(_ladder_table(scores)),
            "## Each problem\n\n" + markdown_table(_problem_table(effects)),
            "![Effect of each problem](problems.png)",
            "\n".join(f"- {answer}" for answer in answers),
        ]
    failed = [f"- {result.name}: {plain(result.failed)}" for result in results if result.failed is not None]
    if failed:
        parts.append("## Runs that failed\n\n" + "\n".join(failed))
    write_atomically(output / REPORT_NAME, ("\n\n".join(parts) + "\n").encode())
    summary = {
        "config": config.model_dump(mode="json"),
        "store": str(store.path),
        "lines": lines,
        "objectives": {name: objective.model_dump(mode="json") for name, objective in objectives(config).items()},
        "results": [result.model_dump(mode="json") for result in results],
        "table": table,
        "answers": answers,
    }
    write_json(output / SUMMARY_NAME, summary)
    return summary


_NOTES = (
    "SDR: median over validation songs of their medians over 1-s frames, at the end of the training; mean over the "
    "seeds, smallest and largest in brackets. Loss: that of the last steps (averaged over some fifty), as a share of "
    "what the untrained network has, and of what the best single mask for everything has. Losses of different systems "
    "are different things; only SDR can be compared from row to row."
)


def _setting(
    config: ComparisonConfig, store: SpectrogramStore, lines: dict[str, float], results: Sequence[RunResult]
) -> str:
    train, valid = len(store.tracks("train")), len(store.tracks("valid"))
    hours = sum(result.seconds for result in results) / 3600
    reached = ", ".join(f"{name} {decibels(value)} dB" for name, value in lines.items())
    return (
        f"{len(results)} trainings of {config.steps} steps of {config.batch_size} patches, width {config.width}, "
        f"seeds from 0 to {config.seeds - 1}, {train} training and {valid} validation songs ({hours:.1f} hours in "
        f"all). Seed, patches, network size and budget are the same for all. Without any network: {reached}."
    )


def _system_table(curves: dict[str, list[RunResult]]) -> list[list[str]]:
    table = [["system", "SDR, dB", "loss / loss at the start", "loss / loss of the best single mask"]]
    for name, found in curves.items():
        table.append(
            [
                name,
                _spread([result.sdr_db for result in found], decibels),
                _spread([result.loss / result.start_loss for result in found], _ratio),
                _spread([result.loss / result.constant_loss for result in found], _ratio),
            ]
        )
    return table


def _ratio(value: float) -> str:
    return f"{value:.3g}"


def _spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """Mean, smallest and largest."""
    return f"{text(mean(values))} ({text(min(values))} ... {text(max(values))})"


def _ladder_table(scores: Scores) -> list[list[str]]:
    table = [["rung", "SDR, dB", "this step gave"]]
    before: Objective | None = None
    for name, objective in ladder().items():
        found = [result.sdr_db for result in scores.of(objective)]
        effect = None if before is None else scores.effect(before, objective)
        title = name if objective != objective_with(frozenset()) else f"{name} = notebook"
        table.append([title, _spread(found, decibels) if found else "-", "" if effect is None else str(effect)])
        before = objective
    return table


def _problem_table(effects: dict[str, dict[str, Effect | None]]) -> list[list[str]]:
    table = [["problem", *next(iter(effects.values()))]]
    for problem, found in effects.items():
        table.append([problem, *("-" if effect is None else str(effect) for effect in found.values())])
    return table


def _answers(scores: Scores) -> list[str]:
    """One plain sentence or two for each claim of the analysis."""
    project, notebook = objective_with(frozenset(PROBLEMS)), objective_with(frozenset())
    answers = []
    whole = scores.effect(project, notebook)
    if whole is not None:
        holds = "does" if whole.matters and whole.mean > 0 else "does not"
        answers.append(f"**Does the notebook beat the project?** It {holds} here: {whole}.")
    fallen = [result.loss / result.constant_loss for result in scores.of(project)]
    if fallen:
        verdict = "falls" if mean(fallen) < 0.9 else "hardly falls"
        answers.append(
            f"**Does the project's loss fall?** It {verdict}: at the end it is {mean(fallen):.0%} of what the best "
            "single mask for everything has."
        )
    for problem, found in problem_effects(scores).items():
        solved, brought, rung = found.values()
        if solved is None or brought is None or rung is None:
            continue
        answers.append(f"**{problem.capitalize()}: did it matter?** {_verdict(solved, brought, rung)}")
    return answers


def _verdict(solved: Effect, brought: Effect, rung: Effect) -> str:
    harms = [solved.matters and solved.mean > 0, brought.matters and brought.mean < 0, rung.matters and rung.mean > 0]
    helps = [solved.matters and solved.mean < 0, brought.matters and brought.mean > 0, rung.matters and rung.mean < 0]
    if any(harms) and any(helps):
        word = "It depends on the rest"
    elif all(harms):
        word = "Yes"
    elif any(harms):
        word = "In part"
    elif any(helps):
        word = "No; here it is of use, against the claim"
    else:
        word = "No, not measurably, against the claim"
    return (
        f"{word}. Solving it alone gives the project {solved}; bringing it alone gives the notebook {brought}; on the "
        f"ladder solving it gives {rung}."
    )
