"""`vocsep screen`: instrumentals in which a model hears no singing."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vocsep.cli.main import OTHERS
from vocsep.paths import MODELS

app = typer.Typer()


@app.command(help=OTHERS["screen"])
def screen(
    folder: Annotated[Path, typer.Argument(help="Folder of instrumentals: any audio files, in subfolders too.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder for songs without singing, to preprocess.")
    ] = None,
    loudest: Annotated[
        float,
        typer.Option(max=0, help="Drop songs whose vocals are louder than this, in dB of the song."),
    ] = -12.0,
    model: Annotated[str, typer.Option(help="champion, latest, bundled, a version's number or a folder.")] = "champion",
    models: Annotated[Path, typer.Option(help="Model registry.")] = MODELS,
) -> None:
    """Screen instrumentals."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from storage.errors import escaped
    from vocsep.evaluation.screening import screen as listen
    from vocsep.mapping import SomeFailed
    from vocsep.progress import progress_on_bar

    failed: SomeFailed | None = None
    with progress_on_bar("listening", "songs") as progress:
        try:
            kept, dropped = listen(
                folder, loudest_db=loudest, output=output, model=model, models=models, progress=progress
            )
        except SomeFailed as some:
            failed, (kept, dropped) = some, some.result
    table = Table("song", "vocals, dB", "loudest at", "", title="What sounds like vocals")
    for one in (*dropped, *kept):
        minutes, seconds = divmod(round(one.seconds), 60)
        fate = "dropped" if one in dropped else "kept"
        table.add_row(Text(escaped(one.song)), f"{one.vocals_db:.1f}", f"{minutes}:{seconds:02}", fate)
    Console().print(table)
    typer.echo(f"{len(kept)} kept, {len(dropped)} dropped (vocals above {loudest:g} dB)")
    if output is not None and kept:
        place = shlex.quote(str(output))
        typer.echo(f"next: vocsep preprocess --dataset {place} --kind accompaniment --store data/instrumentals.zarr")
    if failed is not None:
        raise failed
