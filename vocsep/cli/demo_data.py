"""`vocsep demo-data`: computer-made songs in the layout of MUSDB18."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vocsep.cli.main import OTHERS
from vocsep.paths import DEMO

app = typer.Typer()


@app.command(help=OTHERS["demo-data"])
def demo_data(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = DEMO,
    seed: Annotated[int, typer.Option(min=0, help="Another seed gives other songs.")] = 0,
    train_songs: Annotated[int, typer.Option(min=0, help="Songs in train/.")] = 12,
    test_songs: Annotated[int, typer.Option(min=0, help="Songs in test/.")] = 4,
    seconds: Annotated[tuple[float, float], typer.Option(help="Shortest and longest song.")] = (20.0, 30.0),
) -> None:
    """Make the demo dataset."""
    from vocsep.demo.dataset import make_demo
    from vocsep.progress import progress_on_bar

    with progress_on_bar("demo songs", "songs") as progress:
        paths = make_demo(
            output,
            seed=seed,
            train_songs=train_songs,
            test_songs=test_songs,
            seconds=seconds,
            progress=progress,
        )
    typer.echo(f"{len(paths)} songs in {output}; next: vocsep preprocess --dataset {shlex.quote(str(output))}")
