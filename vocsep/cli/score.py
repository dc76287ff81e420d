"""`vocsep score`: BSSEval of any two folders."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vocsep.cli.main import OTHERS

app = typer.Typer()


@app.command(help=OTHERS["score"])
def score(
    references: Annotated[Path, typer.Argument(help="Folder with the true sources: vocals.wav, drums.flac, ...")],
    estimates: Annotated[Path, typer.Argument(help="Folder with the estimates under the same names.")],
    window: Annotated[float, typer.Option(min=0.001, help="Frame length in seconds.")] = 1.0,
    hop: Annotated[float, typer.Option(min=0.001, help="Seconds from one frame to the next.")] = 1.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file for the values of all frames.")
    ] = None,
) -> None:
    """Score estimates."""
    from storage.errors import UserError, one_line
    from storage.files import is_replaceable, write_json
    from vocsep.evaluation.score_folders import score_folders
    from vocsep.metrics.bsseval import METRICS

    if output is not None and not is_replaceable(output):
        raise UserError(f"{output}: a folder or device; give a file, as in -o scores.json")
    scores = score_folders(references, estimates, window, hop)
    problem = None
    if output is not None:
        # Before they are printed, and printed if they cannot be written: either is enough to keep them.
        try:
            write_json(output, scores)
        except OSError as error:
            problem = one_line(output, "written", error)
    table = Table("source", *METRICS, "frames counted", title="BSSEval v4, medians over frames in dB")
    for name, values in scores["sources"].items():
        medians = [values[metric]["median"] for metric in METRICS]
        frames = values["SDR"]["frames"]
        counted = sum(frame is not None for frame in frames)
        shown = ["-" if median is None else f"{median:.3f}" for median in medians]
        table.add_row(name, *shown, f"{counted} of {len(frames)}")
    Console().print(table)
    for note in scores["notes"]:
        typer.echo(note)
    if problem is not None:
        raise problem
    if output is not None:
        typer.echo(f"all frames: {output}")
