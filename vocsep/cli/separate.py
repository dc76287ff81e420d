"""`vocsep separate` and `vocsep export`."""

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from storage.errors import UserError
from storage.registry import ModelRegistry
from vocsep.cli.options import command_with_settings
from vocsep.paths import MODELS
from vocsep.separation.settings import SeparationSettings

ModelsOption = Annotated[Path, typer.Option("--models", help="Model registry.")]

_BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def _separate(
    inputs: Annotated[list[Path], typer.Argument(help="Audio files, and folders that are searched for them.")],
    settings: dict[str, Any],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the stems.")] = Path("data/separated"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Blocks computed at a time (default: cores, at most 4).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    models: ModelsOption = MODELS,
) -> None:
    """Separate songs: writes OUTPUT/<song>/vocals and OUTPUT/<song>/accompaniment."""
    from vocsep.audio.reading import audio_info
    from vocsep.config import validated
    from vocsep.progress import progress_bar
    from vocsep.separation.outputs import inputs_to_separate

    chosen = validated(SeparationSettings, settings, "command line")
    songs = inputs_to_separate(inputs, output, chosen.name)
    if chosen.engine == "torch":
        ModelRegistry(models).open(chosen.model)  # told before anything is read
    seconds: dict[Path, float] = {}
    errors: dict[Path, str] = {}
    for song in songs:
        try:
            seconds[song] = audio_info(song).seconds
        except UserError as error:
            if len(songs) == 1:
                raise
            errors[song] = str(error)
    results = []
    if seconds:
        from vocsep.separation.files import separate_file
        from vocsep.separation.separator import Separator

        separator = Separator.load(
            chosen.model,
            models,
            device=chosen.device,
            engine=chosen.engine,
            overlap=chosen.overlap,
            wiener=chosen.wiener,
            jobs=jobs,
        )
        with progress_bar(max(0.01, sum(seconds.values())), "separate", "s", bar_format=_BAR) as bar:
            before = 0.0  # seconds of the songs that are done, as their files told them
            for number, (song, length) in enumerate(seconds.items(), start=1):
                bar.set_description(f"separate {number}/{len(seconds)} {song.name[:40]}", refresh=False)

                def show(done: float, before: float = before, length: float = length) -> None:
                    bar.update(before + min(done, length) - bar.n)
                    spent = bar.format_dict["elapsed"]
                    bar.set_postfix_str(f"{bar.n / max(spent, 1e-9):.0f} x real time", refresh=False)

                try:
                    results.append(separate_file(song, output, separator, chosen, show))
                except UserError as error:
                    if len(songs) == 1:
                        raise
                    errors[song] = str(error)
                before += length
                show(0.0, before, 0.0)
    if as_json:
        typer.echo(json.dumps([*(_record(each) for each in results), *_failed(errors)], indent=1))
    else:
        for result in results:
            typer.echo(result.line())
    for message in errors.values():
        typer.echo(f"error: {message}", err=True)
    if errors:
        typer.echo(f"{len(errors)} of {len(songs)} files failed, the others are done", err=True)
        raise typer.Exit(1)


separate = command_with_settings(SeparationSettings, _separate)


def export(
    export_format: Annotated[
        str, typer.Option("--format", help="onnx, or torch (a program of torch.export).")
    ] = "onnx",
    model: Annotated[str, typer.Option(help="champion, latest, a version's number or a model folder.")] = "champion",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: where --engine onnx looks.")
    ] = None,
    models: ModelsOption = MODELS,
) -> None:
    """Export a model for other programs, and for separating without torch."""
    if export_format not in ("onnx", "torch"):
        raise UserError(f"--format {export_format}: use onnx or torch")
    from vocsep.models.export import LARGEST_DIFFERENCE, export_model

    exported = export_model(model, models, cast(Any, export_format), output)
    typer.echo(f"{exported.path}: largest difference of a mask from the model's {exported.largest_difference:.1e}")
    typer.echo(f"  (at most {LARGEST_DIFFERENCE:g} is let through)")
    if export_format == "onnx":
        typer.echo(f"  next: vocsep separate song.mp3 --engine onnx --model {output or model}")


def _record(result: Any) -> dict[str, Any]:
    """What `--json` says of a song."""
    return {
        "input": str(result.path),
        "state": "separated" if result.is_new else "already there",
        "outputs": {stem: str(file) for stem, file in result.outputs.items()},
        "picture": str(result.picture) if result.picture else None,
        "sample_rate": result.sample_rate,
        "channels": result.channels,
        "seconds": result.seconds,
        "wall_seconds": result.wall_seconds,
        "clipped_samples": result.clipped_samples,
        "gain": result.gain,
    }


def _failed(errors: dict[Path, str]) -> list[dict[str, Any]]:
    return [{"input": str(song), "state": "failed", "error": message} for song, message in errors.items()]
