"""A trained model as a folder that can be shipped: half-precision weights, a description, and a card for people."""

from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import UserError
from storage.files import file_digest, save_arrays, value_digest, write_atomically, write_json, writing_folder
from storage.registry import DESCRIPTION_DIGEST, DESCRIPTION_NAME, WEIGHTS_DIGEST, WEIGHTS_NAME, ModelVersion
from vocsep.recipes.config import Recipe
from vocsep.tables import decibels, interval_text, markdown_table

CARD_NAME = "README.md"


def write_bundle(
    models: list[ModelVersion], recipe: Recipe, scores: dict[str, Any], checks: dict[str, Any], folder: Path
) -> None:
    """Write a model and its card to `folder`, which is replaced.

    Weights are float16. Paths of the machine that it was made on are left out.

    Parameters
    ----------
    models
        Of the recipe's trainings; the last one is written.
    scores
        What `evaluate` found: its summary.
    checks
        What the recipe's checks found, by name.

    Raises
    ------
    UserError
        If a weight is too large for float16.
    """
    model = models[-1]
    weights = {
        name: value.astype(np.float16) if value.dtype == np.float32 else value
        for name, value in model.load_weights().items()
    }
    if large := [name for name, value in weights.items() if not np.isfinite(value).all()]:
        raise UserError(f"{model.path}: {large[0]} does not fit float16")
    description = {name: value for name, value in model.description.items() if name != WEIGHTS_DIGEST}
    *earlier, training = [
        {name: value for name, value in one.description["training"].items() if name not in ("run", "extra")}
        for one in models
    ]
    description |= {
        "training": training,
        "earlier_trainings": earlier,
        "history": _history(models),
        "recipe": {
            "title": recipe.title,
            "sets": [one.model_dump(mode="json", exclude={"path"}) for one in recipe.sets],
        },
        "licence": "; ".join(sorted({f"{one.source}: {one.licence}" for one in recipe.sets})),
        "scores": {
            "songs": scores["songs"],
            "split": scores["split"],
            "rows": {row: scores["rows"][row] for row in ("model", "mixture", "irm1")},
        },
        "checks": checks,
    }
    with writing_folder(folder, replace=True) as made:
        save_arrays(weights, made / WEIGHTS_NAME)
        description[WEIGHTS_DIGEST] = file_digest(made / WEIGHTS_NAME)
        write_json(made / DESCRIPTION_NAME, description | {DESCRIPTION_DIGEST: value_digest(description)})
        write_atomically(made / CARD_NAME, _card(description, recipe, scores).encode())


def require_bundle(folder: Path) -> None:
    """Raise `UserError` if a folder that a model is to replace holds anything else."""
    known = {WEIGHTS_NAME, DESCRIPTION_NAME, CARD_NAME}
    if folder.exists() and (not folder.is_dir() or {entry.name for entry in folder.iterdir()} - known):
        raise UserError(f"{folder}: is to be replaced by the model, and holds something else; give another --output")


def _card(description: dict[str, Any], recipe: Recipe, scores: dict[str, Any]) -> str:
    """What people should know of the model, in markdown."""
    architecture, trainings = description["architecture"], [*description["earlier_trainings"], description["training"]]
    rows = [["", "vocals SDR, median", "95 %", "mean", "accompaniment SDR, median", "mean"]]
    for row, title in (("model", "this model"), ("mixture", "mixture (floor)"), ("irm1", "ideal ratio mask (ceiling)")):
        vocals, accompaniment = (scores["rows"][row][source]["SDR"] for source in ("vocals", "accompaniment"))
        interval = interval_text(scores["intervals"][row]["vocals"]["median"])
        figures = [vocals["median"], vocals["mean"], accompaniment["median"], accompaniment["mean"]]
        median, mean, *others = map(decibels, figures)
        rows.append([title, median, interval, mean, *others])
    sets = [["set", "kind", "license"], *([one.source, one.kind, one.licence] for one in recipe.sets)]
    return "\n".join(
        [
            f"# {recipe.title}",
            "",
            f"A {architecture['name']} network of width {architecture['width']} that separates vocals from "
            f"accompaniment, trained for {', then '.join(map(_extent, trainings))}.",
            "",
            "## Scores",
            "",
            f"BSSEval v4 in dB over {scores['songs']} songs of the {scores['split']} split of {recipe.sets[0].source}: "
            "median over 1-s frames per song, then median and mean over songs. None of these songs was trained on.",
            "",
            markdown_table(rows),
            "",
            *(_checks(recipe, description["checks"]) if recipe.checks else ()),
            "## Training data",
            "",
            markdown_table(sets),
            "",
            "Use of the weights is bound by these licenses: where one allows research only, so do the weights.",
            "",
            f"Weights: SHA-256 `{description[WEIGHTS_DIGEST]}`, float16. Made with vocsep "
            f"{description['versions']['vocsep']} (code {description['versions']['code']}).",
            "",
        ]
    )


def _history(models: list[ModelVersion]) -> list[dict[str, float]]:
    """The validations of all trainings, their steps counted from the first one's beginning."""
    history: list[dict[str, float]] = []
    before = 0
    for one in models:
        history += [point | {"step": before + point["step"]} for point in one.description["history"]]
        before += one.description["training"]["steps_done"]
    return history


def _extent(training: dict[str, Any]) -> str:
    minutes, device = training["seconds"] / 60, training["device"]
    return f"{training['steps_done']} steps of {training['batch_size']} patches ({minutes:.0f} minutes, {device})"


def _checks(recipe: Recipe, found: dict[str, Any]) -> list[str]:
    """The part of the card on other kinds of music."""
    rows = [["music", "songs", "", "median", ""]]
    for one in recipe.checks:
        figures = found[one.name]
        if "vocals_level_db" in figures:
            level = figures["vocals_level_db"]
            values = ["vocals, in dB of the song", decibels(level["median"]), f"loudest {decibels(level['highest'])}"]
        else:
            sdr = figures["vocals_sdr_db"]
            values = ["vocals SDR, dB", decibels(sdr["median"]), f"mean {decibels(sdr['mean'])}"]
        rows.append([one.source, str(figures["songs"]), *values])
    return [
        "## Other music",
        "",
        "None of it was trained on. Instrumentals have no vocals: the quieter those that come out, the better.",
        "",
        markdown_table(rows),
        "",
    ]
