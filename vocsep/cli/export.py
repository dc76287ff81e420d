"""`vocsep export`: a model as a file for other programs."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from storage.errors import UserError
from vocsep.cli.main import OTHERS
from vocsep.paths import MODELS

app = typer.Typer()


@app.command(help=OTHERS["export"])
def export(
    export_format: Annotated[
        str, typer.Option("--format", help="onnx, or torch (a program of torch.export).")
    ] = "onnx",
    model: Annotated[str, typer.Option(help="champion, latest, bundled, a version's number or a folder.")] = "champion",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: where --engine onnx looks.")
    ] = None,
    models: Annotated[Path, typer.Option(help="Model registry.")] = MODELS,
) -> None:
    """Export a model."""
    if export_format not in ("onnx", "torch"):
        raise UserError(f"--format {export_format}: use onnx or torch")
    from vocsep.models.export import LARGEST_DIFFERENCE, export_model

    exported = export_model(model, models, cast(Any, export_format), output)
    typer.echo(f"{exported.path}: largest difference of a mask from the model's {exported.largest_difference:.1e}")
    typer.echo(f"  (limit {LARGEST_DIFFERENCE:g})")
    if export_format == "onnx":
        typer.echo(f"  next: vocsep separate song.mp3 --engine onnx --model {output or model}")
