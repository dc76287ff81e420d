"""`vocsep models ...`: list, compare, promote and delete trained models."""

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from storage.calling import call
from storage.errors import UserError
from storage.registry import KEEP, WEIGHTS_DIGEST, ModelRegistry, ModelVersion
from vocsep.cli.main import OTHERS
from vocsep.evaluation.report.facts import training_total
from vocsep.evaluation.report.reading import SongsScore, score_on_test_songs, scores_on_test_songs
from vocsep.models.registry import open_registry
from vocsep.paths import MODELS, REPORTS
from vocsep.tables import aligned, decibels, visible

app = typer.Typer(no_args_is_help=True, help=OTHERS["models"])

ModelsOption = Annotated[Path, typer.Option("--models", help="Model registry.")]
VersionArgument = Annotated[
    str, typer.Argument(help="champion, latest, bundled, a version's number or a model folder.")
]


@app.command("list")
def models_list(
    models: ModelsOption = MODELS,
    reports: Annotated[Path, typer.Option(help="Folder of reports, for the scores on test songs.")] = REPORTS,
) -> None:
    """List the models with their scores; the one that `separate` uses has a star."""
    registry = open_registry(models)
    champion = registry.champion()
    names = {str(version): "*" if version == champion else "" for version in registry.versions()}
    names["bundled"] = "" if champion else "*"
    tests = scores_on_test_songs(reports)
    rows = [["model", "", "made", "network", "dataset", "spectrogram", "steps", "valid SDR", "test SDR", "songs"]]
    problems = []
    for name, mark in names.items():
        try:
            model = registry.open(name)
            model.verify()
            rows.append([name, mark, *_row(model), *_test(model, tests)])
        except UserError as error:
            problems.append(str(error))
            rows.append([name, mark, "damaged", *[""] * (len(rows[0]) - 3)])
    typer.echo("\n".join(aligned(rows)))
    typer.echo(f"* in use; SDR of the vocals in dB, medians over songs; test songs: reports in {reports}")
    for problem in problems:
        typer.echo(f"damaged: {problem}", err=True)


@app.command("show")
def models_show(version: VersionArgument = "champion", models: ModelsOption = MODELS) -> None:
    """Show everything known about a model, as JSON; its files are verified first."""
    model = open_registry(models).open(version)
    model.verify()
    typer.echo(json.dumps({"path": str(model.path), "version": model.version} | model.description, indent=1))


@app.command("compare")
def models_compare(first: VersionArgument, second: VersionArgument, models: ModelsOption = MODELS) -> None:
    """Show how two models differ: settings, songs, scores on the validation songs."""
    registry = open_registry(models)
    both = [registry.open(name) for name in (first, second)]
    for model in both:
        model.verify()
    values = [_flat(model.description) for model in both]
    table = Table("", *(_name(model) for model in both), box=box.SIMPLE)
    for name in sorted(values[0].keys() | values[1].keys()):
        left, right = (str(one.get(name, "-")) for one in values)
        if left != right:
            table.add_row(name, left, right)
    Console().print(table)
    for split in ("train", "valid"):
        songs = [set(model.songs(split)) for model in both]
        for model, own, other in zip(both, songs, reversed(songs), strict=True):
            if only := sorted(own - other):
                typer.echo(f"{split} songs of {_name(model)} only: {', '.join(only)}")
    if songs[0] != songs[1]:
        typer.echo("Their validation scores are of different songs: do not compare them.")
    typer.echo(f"On the test songs, song by song: vocsep evaluate --model {first} --against {second}")


@app.command("promote")
def models_promote(
    version: Annotated[int, typer.Argument(min=1, help="A version's number.")], models: ModelsOption = MODELS
) -> None:
    """Make a version the champion."""
    registry = _registry(models)
    held = None
    with contextlib.suppress(UserError):  # promoting repairs a history that is damaged
        held = registry.champion()
    registry.promote(version, "promoted by hand")
    if held == version:
        typer.echo(f"version {version} is already the champion")
    elif registry.earlier_champion() is not None:
        typer.echo(f"version {version} is the champion; back to the one before with: vocsep models rollback")
    else:
        typer.echo(f"version {version} is the champion; there is none before it to go back to")


@app.command("rollback")
def models_rollback(models: ModelsOption = MODELS) -> None:
    """Make the champion before this one the champion again."""
    left, held = _registry(models).rollback()
    typer.echo(f"version {held} is the champion again instead of {left}, which stays in the registry")


@app.command("history")
def models_history(models: ModelsOption = MODELS) -> None:
    """List the champions so far, the one in use last."""
    for reign in _registry(models).history():
        typer.echo(f"{reign.version}  {reign.since or '-'}  {reign.why}".rstrip())


@app.command("prune")
def models_prune(
    keep: Annotated[int, typer.Option(min=1, help="Number of newest versions to keep.")] = KEEP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    models: ModelsOption = MODELS,
) -> None:
    """Delete old versions; the champion and the one before it always stay."""
    registry = _registry(models)
    versions = registry.prunable(keep) if dry_run else registry.prune(keep)
    named = ", ".join(map(str, versions)) or "none"
    typer.echo(f"{'would delete' if dry_run else 'deleted'} {len(versions)} versions: {named}")


def _registry(models: Path) -> ModelRegistry:
    registry = open_registry(models)
    if not registry.versions():
        raise UserError(f"{models}: no model yet; run `{call('train', 'train')}` first")
    return registry


def _row(model: ModelVersion) -> list[str]:
    architecture = model.description.get("architecture")
    rate, n_fft, hop = (model.says("spectrogram", name) for name in ("sample_rate", "n_fft", "hop_length"))
    score = model.says("metrics", "valid_sdr_db")
    row = [
        str(model.says("created"))[:16].replace("T", " "),
        str(architecture.get("name") or "unet") if isinstance(architecture, dict) else "-",
        str(model.says("data", "dataset")),
        f"{rate} Hz, {n_fft}/{hop}",
        str(training_total(model.description, "steps_done") or model.says("training", "steps_done")),
        f"{score:.2f}" if isinstance(score, float) else str(score),
    ]
    return [visible(cell) for cell in row]


def _test(model: ModelVersion, tests: dict[str, SongsScore]) -> list[str]:
    """Score on test songs, and of how many: of the newest report, else what the model itself says."""
    score = tests.get(str(model.description.get(WEIGHTS_DIGEST))) or score_on_test_songs(
        model.description.get("scores")
    )
    return ["-", ""] if score is None else [decibels(score.vocals_sdr_db), str(score.songs)]


def _name(model: ModelVersion) -> str:
    return f"version {model.version}" if model.version is not None else str(model.path)


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings and figures by dotted names; lists of songs and the history of validations are left out."""
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            found |= _flat(inner, f"{above}{name}.")
        elif f"{above}{name}" not in ("data.train", "data.valid", "history"):
            found[f"{above}{name}"] = inner
    return found
