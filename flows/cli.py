"""Command line of the flows; several may be named one after the other: `python -m flows preprocess train evaluate`."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from flows.environment import set_defaults
from storage.errors import UserError
from vocsep.cli.options import command_with_settings
from vocsep.comparison.config import ComparisonConfig
from vocsep.paths import ALL_BINS_STORE, COMPARISON, MODELS, REPORTS, RUNS, SEPARATED, SERVE, STORE
from vocsep.separation.settings import SeparationSettings
from vocsep.training.config import TrainConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run vocsep's Prefect flows. Several may be named in one call: preprocess train evaluate.",
)

Returned = TypeVar("Returned")

StoreOption = Annotated[str, typer.Option(help="Spectrogram store: a folder, or a URL such as s3://bucket/name.zarr.")]
ModelsOption = Annotated[Path, typer.Option(help="Model registry.")]
DatasetOption = Annotated[Path | None, typer.Option(envvar="MUSDB_PATH", help="Root folder of the songs.")]
KindOption = Annotated[str, typer.Option(help="auto, musdb18, musdb18-hq, folder or karaoke.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Dask processes; by default one per core.")]


def say(text: str = "") -> None:
    """Tell the user."""
    typer.echo(text)


def run_flow(check: Callable[[Any], None], flow: Callable[[Any], Returned], config: Any) -> Returned:
    """Check the parameters, then run the flow; the first one of a process starts a server unless the settings name one.

    (Prefect would start one too, but one that outlives this process if it is killed.)
    """
    check(config)
    from prefect.settings import PREFECT_API_URL

    from flows.serving.embedded import own_server, using

    if PREFECT_API_URL.value():
        return flow(config)
    announce_server()
    with using(own_server(), has_ui=False):
        return flow(config)


@functools.cache
def announce_server() -> None:
    """Say, once in a process, what the first flow is waiting for."""
    say("Prefect: starting its embedded server, 10-20 s (set PREFECT_API_URL to use a running one)")


@app.command("preprocess")
def preprocess(
    dataset: DatasetOption = None,
    kind: KindOption = "auto",
    preset: Annotated[str, typer.Option(help="Spectral preset (fine, notebook) or YAML file.")] = "fine",
    dtype: Annotated[str, typer.Option(help="Stored type: float16 or float32.")] = "float16",
    compression: Annotated[str, typer.Option(help="none, zstd or blosc (smaller, read far slower).")] = "none",
    store: StoreOption = str(STORE),
    workers: WorkersOption = None,
    prune: Annotated[bool, typer.Option("--prune", help="Drop songs that are no longer in the dataset.")] = False,
) -> None:
    """Write a dataset's spectrograms to the store; without a dataset, make and use the demo songs."""
    from flows import preprocess as module

    config = _validated(
        module.PreprocessConfig,
        {
            "dataset": dataset,
            "kind": kind,
            "preset": preset,
            "dtype": dtype,
            "compression": compression,
            "store": store,
            "workers": workers,
            "prune": prune,
        },
    )
    result = run_flow(module.check, module.preprocess, config)
    say(
        f"\npreprocess: {result.made} songs written, {result.unchanged} unchanged, {result.songs_hours:.2f} hours in "
        f"{result.store} ({result.seconds:.0f} s)"
    )
    if result.gone:
        fate = "dropped" if prune else "kept (--prune drops them)"
        say(f"  no longer in the dataset, {fate}: {', '.join(result.gone)}")
    say("  next: make train, or look inside with: vocsep store info")


def _train(
    settings: dict[str, Any],
    store: StoreOption = str(STORE),
    models: ModelsOption = MODELS,
    runs: Annotated[Path, typer.Option(help="Folder for runs: curves, checkpoints.")] = RUNS,
    resume: Annotated[
        str, typer.Option(help="auto: go on with an unfinished run of these settings; never; or a run's folder.")
    ] = "auto",
) -> None:
    """Train a model from the store and add it to the registry."""
    from flows import train as module
    from vocsep.training.run_folder import with_settings_of

    values: dict[str, Any] = {"training": with_settings_of(resume, settings)}
    values |= {"store": store, "models": models, "runs": runs, "resume": resume}
    result = run_flow(module.check, module.train, _validated(module.TrainJob, values))
    say()
    for line in result.lines():
        say(line)
    say("  real runs: MUSDB18 (MUSDB_PATH=...), at least an hour (MAX_MINUTES=60), a GPU if there is one")
    say("  next: make eval, or separate a song with: make separate INPUT=song.mp3")


app.command("train")(command_with_settings(TrainConfig, _train))


@app.command("evaluate")
def evaluate(
    model: Annotated[str, typer.Option(help="latest, champion, a version's number or a model folder.")] = "latest",
    estimates: Annotated[
        Path | None, typer.Option(help="Folder of estimates made elsewhere, <song>/vocals.wav ..., instead of a model.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Model to compare with; by default the champion.")] = None,
    dataset: DatasetOption = None,
    kind: KindOption = "auto",
    split: Annotated[str, typer.Option(help="Songs to score: test, valid or train.")] = "test",
    engine: Annotated[str, typer.Option(help="fast, or museval (the reference, slow).")] = "fast",
    store: StoreOption = str(STORE),
    models: ModelsOption = MODELS,
    reports: Annotated[Path, typer.Option(help="Folder for reports.")] = REPORTS,
    workers: WorkersOption = None,
) -> None:
    """Score a model on songs with known stems and write a report."""
    from flows import evaluate as module
    from vocsep.evaluation.report.text import print_summary

    values = {
        "model": model,
        "estimates": estimates,
        "against": against,
        "dataset": dataset,
        "kind": kind,
        "split": split,
        "engine": engine,
        "store": store,
        "models": models,
        "reports": reports,
        "workers": workers,
    }
    result = run_flow(module.check, module.evaluate, _validated(module.EvaluateConfig, values))
    say(f"\nevaluate: {result.summary['songs']} {split} songs")
    print_summary(result.summary)
    say(f"  report: {result.report}/report.html, report.md (also in {reports}/latest)")
    say("  next: make separate INPUT=song.mp3")


app.command("eval", hidden=True)(evaluate)


def _separate(
    settings: dict[str, Any],
    inputs: Annotated[list[Path], typer.Option("--input", help="Audio file or folder; may be given several times.")],
    output: Annotated[Path, typer.Option(help="Folder for the stems.")] = SEPARATED,
    models: ModelsOption = MODELS,
    workers: WorkersOption = None,
) -> None:
    """Separate songs into vocals and accompaniment."""
    from flows import separate as module

    values = settings | {"inputs": inputs, "output": output, "models": models, "workers": workers}
    result = run_flow(module.check, module.separate, _validated(module.SeparateConfig, values))
    say(f"\nseparate: {len(result.files)} files in {result.output}")
    for file in result.files:
        say(f"  {file}")


app.command("separate")(command_with_settings(SeparationSettings, _separate))


def _retrain(
    settings: dict[str, Any],
    dataset: DatasetOption = None,
    kind: KindOption = "auto",
    preset: Annotated[str, typer.Option(help="Spectral preset (fine, notebook) or YAML file.")] = "fine",
    start: Annotated[str, typer.Option(help="scratch, or champion to fine-tune it.")] = "scratch",
    force: Annotated[bool, typer.Option("--force", help="Train even if nothing changed.")] = False,
    confidence: Annotated[float, typer.Option(help="How sure it must be that the new model is better.")] = 0.95,
    keep: Annotated[int, typer.Option(help="How many models, reports and checkpointed runs stay.")] = 10,
    store: StoreOption = str(STORE),
    models: ModelsOption = MODELS,
    runs: Annotated[Path, typer.Option(help="Folder for runs: curves, checkpoints.")] = RUNS,
    reports: Annotated[Path, typer.Option(help="Folder for reports.")] = REPORTS,
    workers: WorkersOption = None,
) -> None:
    """Take in new songs, train a challenger, and promote it if it is better than the champion on the test songs."""
    from flows import retrain as module

    values = {
        "training": settings,
        "dataset": dataset,
        "kind": kind,
        "preset": preset,
        "start": start,
        "force": force,
        "confidence": confidence,
        "keep": keep,
        "store": store,
        "models": models,
        "runs": runs,
        "reports": reports,
        "workers": workers,
    }
    result = run_flow(module.check, module.retrain, _validated(module.RetrainConfig, values))
    say(f"\n{result.report}")


app.command("retrain")(command_with_settings(TrainConfig, _retrain))


@app.command("schedule")
def schedule(
    off: Annotated[bool, typer.Option("--off", help="Turn it off.")] = False,
) -> None:
    """Turn the weekly retraining on, or off, on the server that `serve` started."""
    from flows.serving import daemon as serving

    say(serving.set_schedule(active=not off))


@app.command("serve")
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server, on this machine only.")] = 4200,
) -> None:
    """Start Prefect's server, a work pool, all deployments and a worker, which go on after this command."""
    from flows.serving import daemon as serving

    say("Starting Prefect's server, the deployments and a worker, about half a minute ...")
    address = serving.serve(port)
    say(f"serving: {address} (runs, schedules, artifacts); logs in {SERVE}")
    say(f"  from another folder: export PREFECT_API_URL={address}/api")
    say("  next: .venv/bin/prefect deployment run 'preprocess/local' --watch")
    on = serving.is_scheduled(port)
    state, order = ("on", "turn it off with: make unschedule") if on else ("off", "turn it on with: make schedule")
    say(f"  the weekly retraining is {state}; {order}")
    say("  end all of it with: make stop")


@app.command("stop")
def stop() -> None:
    """End exactly what `serve` started; runs save what they have."""
    from flows.serving import daemon as serving

    say("stopped" if serving.stop() else "nothing was served from this folder")


def _compare(
    settings: dict[str, Any],
    store: Annotated[str, typer.Option(help="Store with all bins: a folder, or a URL.")] = str(ALL_BINS_STORE),
    output: Annotated[Path, typer.Option(help="Folder of the comparison: runs and report.")] = COMPARISON,
) -> None:
    """Train the systems of the original analysis side by side, and say what made the difference."""
    from flows import compare as module

    values = settings | {"store": store, "output": output}
    result = run_flow(module.check, module.compare, _validated(module.CompareConfig, values))
    say(f"\ncompare: {result.runs} runs, {result.failed} of them failed")
    for line in result.lines:
        say(f"  {line}")
    say(f"  report: {result.report}")


app.command("compare")(command_with_settings(ComparisonConfig, _compare))


def _validated(model: Any, values: dict[str, Any]) -> Any:
    from vocsep.config import validated

    return validated(model, values, "command line")


def main() -> None:
    """Run, and end with 0, 1 (songs failed) or 2 (a mistake of the user's, told in one line)."""
    try:
        set_defaults()
        for arguments in steps(sys.argv[1:]):
            run_step(arguments)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        from flows.reporting import SomeFailed
        from vocsep.training.stopping import TrainingStopped

        if isinstance(error, TrainingStopped):
            typer.echo(str(error), err=True)
            sys.exit(128 + error.signal)
        if not isinstance(error, SomeFailed):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def steps(arguments: list[str]) -> list[list[str]]:
    """Split a command line at the names of the steps; a word after an option is its value.

    >>> steps(["preprocess", "evaluate", "--split", "train"])
    [['preprocess'], ['evaluate', '--split', 'train']]
    """
    names = {command.name for command in app.registered_commands if command.name}
    found: list[list[str]] = [[]]
    for index, argument in enumerate(arguments):
        is_value = index > 0 and arguments[index - 1].startswith("-") and arguments[index - 1] != "--help"
        if argument in names and not is_value and found[-1]:
            found.append([])
        found[-1].append(argument)
    return found


def run_step(arguments: list[str]) -> None:
    """Run one step; ends the process only if the command line was wrong."""
    try:
        app(args=arguments)
    except SystemExit as end:
        if end.code not in (0, None):
            raise
