"""The `vocsep` command. Heavy imports stand inside the commands, so that each starts fast."""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from storage.errors import UserError
from vocsep.cli.doctor import doctor
from vocsep.cli.models import app as models_app
from vocsep.cli.options import command_with_settings
from vocsep.cli.separate import ModelsOption, export, separate
from vocsep.cli.store import app as store_app
from vocsep.paths import MODELS, STORE
from vocsep.training.config import TrainConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="vocsep takes songs apart: vocals and accompaniment.",
)
app.add_typer(store_app, name="store")
app.add_typer(models_app, name="models")
app.command("doctor")(doctor)


@app.command("demo-data")
def demo_data(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("data/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other songs.")] = 0,
    train_songs: Annotated[int, typer.Option(min=0, help="Songs in train/.")] = 12,
    test_songs: Annotated[int, typer.Option(min=0, help="Songs in test/.")] = 4,
    seconds: Annotated[tuple[float, float], typer.Option(help="Shortest and longest song.")] = (20.0, 30.0),
) -> None:
    """Make the demo dataset: computer-made songs in the form of MUSDB18."""
    from vocsep.demo.dataset import make_demo
    from vocsep.progress import progress_bar

    with progress_bar(train_songs + test_songs, "demo songs", "songs") as bar:
        paths = make_demo(
            output,
            seed=seed,
            train_songs=train_songs,
            test_songs=test_songs,
            seconds=seconds,
            on_song=lambda _: bar.update(1),
        )
    typer.echo(f"{len(paths)} songs in {output}; next: make preprocess")


app.command("separate")(separate)
app.command("export")(export)


@app.command()
def evaluate(
    dataset: Annotated[
        Path | None, typer.Option(envvar="MUSDB_PATH", help="Songs with known stems; default: those of the store.")
    ] = None,
    model: Annotated[str, typer.Option(help="latest, champion, a version's number or a model folder.")] = "latest",
    estimates: Annotated[
        Path | None, typer.Option(help="Folder of estimates made elsewhere, <song>/vocals.wav ..., instead of a model.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Model to compare with; by default the champion.")] = None,
    kind: Annotated[str, typer.Option(help="auto, musdb18, musdb18-hq, folder or karaoke.")] = "auto",
    split: Annotated[str, typer.Option(help="Songs to score: test, valid or train.")] = "test",
    engine: Annotated[str, typer.Option(help="fast, or museval (the reference, slow).")] = "fast",
    store: Annotated[Path, typer.Option(help="Spectrogram store.")] = STORE,
    models: ModelsOption = MODELS,
    reports: Annotated[Path, typer.Option(help="Folder for reports.")] = Path("data/reports"),
) -> None:
    """Score a model on songs with known stems, in this process (`make eval` does it on all cores)."""
    from vocsep.evaluation.exhibits import make_exhibit
    from vocsep.evaluation.report.text import print_summary
    from vocsep.evaluation.report.writing import report_folder, songs_to_exhibit, write_report
    from vocsep.evaluation.scores import Engine, evaluate_song
    from vocsep.evaluation.target import resolve_evaluation
    from vocsep.progress import progress_bar

    if engine not in get_args(Engine):
        raise UserError(f"--engine {engine}: use {' or '.join(get_args(Engine))}")
    target = resolve_evaluation(models, model, dataset, kind, split, store, estimates=estimates, against=against)
    folder = report_folder(reports, target)
    scored = []
    failures = {}
    with progress_bar(len(target.songs), "evaluate", "songs") as bar:
        for song in target.songs:
            try:
                scored.append(evaluate_song(song, target.subjects, folder, cast(Engine, engine)))
            except UserError as error:
                failures[song.name] = str(error)
            bar.update(1)
    songs = {song.id: song for song in target.songs}
    exhibits = {
        title: make_exhibit(songs[scores.track_id], target.subjects["model"], folder / "exhibits")
        for title, scores in songs_to_exhibit(scored).items()
    }
    summary = write_report(folder, target, scored, failures, exhibits)
    print_summary(summary)
    typer.echo(f"report: {folder}/report.html, report.md (also in {reports}/latest)")
    for name, reason in failures.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    if failures:
        raise typer.Exit(1)


@app.command()
def score(
    references: Annotated[Path, typer.Argument(help="Folder with the true sources: vocals.wav, drums.flac, ...")],
    estimates: Annotated[Path, typer.Argument(help="Folder with the estimates under the same names.")],
    window: Annotated[float, typer.Option(min=0.001, help="Frame length in seconds.")] = 1.0,
    hop: Annotated[float, typer.Option(min=0.001, help="Seconds from one frame to the next.")] = 1.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file for the values of all frames.")
    ] = None,
) -> None:
    """Score any estimates with BSSEval v4: no dataset, model or store needed."""
    from rich.console import Console
    from rich.table import Table

    from storage.files import write_json
    from vocsep.evaluation.score_folders import score_folders
    from vocsep.metrics.bsseval import METRICS

    scores = score_folders(references, estimates, window, hop)
    table = Table("source", *METRICS, "frames counted", title="BSSEval v4, medians over frames in dB")
    for name, values in scores["sources"].items():
        medians = [values[metric]["median"] for metric in METRICS]
        frames = values["SDR"]["frames"]
        counted = sum(frame is not None for frame in frames)
        shown = ["-" if median is None else f"{median:.3f}" for median in medians]
        table.add_row(name, *shown, f"{counted} of {len(frames)}")
    Console().print(table)
    if output is not None:
        write_json(output, scores)
        typer.echo(f"all frames: {output}")


def _train(
    settings: dict[str, Any],
    store: Annotated[Path, typer.Option(help="Spectrogram store.")] = STORE,
    models: ModelsOption = MODELS,
    runs: Annotated[Path, typer.Option(help="Folder for runs: curves, checkpoints.")] = Path("data/runs"),
    resume: Annotated[
        str, typer.Option(help="auto: go on with an unfinished run of these settings; never; or a run's folder.")
    ] = "auto",
) -> None:
    """Train a model without Prefect: under torchrun, on SLURM, or alone."""
    from vocsep.config import validated
    from vocsep.training.run_folder import with_settings_of
    from vocsep.training.step import TrainJob, train
    from vocsep.training.stopping import TrainingStopped

    config = validated(TrainConfig, with_settings_of(resume, settings), "command line")
    job = TrainJob(training=config, store=store, models=models, runs=runs, resume=resume)
    logging.getLogger("vocsep").setLevel(logging.INFO)
    logging.basicConfig(format="%(message)s")
    try:
        result = train(job)
    except TrainingStopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(128 + stopped.signal) from None
    for line in result.lines() if result else ():
        typer.echo(line)


app.command("train")(command_with_settings(TrainConfig, _train))


def main() -> None:
    """Run, and end with 0, 1 (some songs failed) or 2 (a mistake of the user's, told in one line)."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
