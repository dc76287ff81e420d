"""`vocsep page`: separate songs and listen to the stems in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from vocsep.cli.main import OTHERS
from vocsep.paths import MODELS, PAGE, REPORTS

app = typer.Typer()


@app.command(help=OTHERS["page"])
def page(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on this machine; 0: any free one.")] = 4280,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    models: Annotated[Path, typer.Option(help="Model registry.")] = MODELS,
    folder: Annotated[Path, typer.Option(help="Folder for songs and stems; they are deleted after a day.")] = PAGE,
    reports: Annotated[Path, typer.Option(help="Folder with reports of evaluations.")] = REPORTS,
    most_mb: Annotated[int, typer.Option("--most-mb", min=1, help="Largest file that is accepted, in MB.")] = 2000,
) -> None:
    """Serve the page until Ctrl-C."""
    try:
        from vocsep.page.server import open_browser, serve
    except ModuleNotFoundError as missing:
        from storage.errors import UserError

        if missing.name not in ("starlette", "uvicorn"):
            raise
        raise UserError(f"the page needs {missing.name}: pip install 'vocsep[page]'") from None

    def on_start(address: str) -> None:
        typer.echo(f"vocsep's page: {address} (Ctrl-C stops it)")
        if not no_browser:
            open_browser(address)

    serve(folder, models, reports, port, most_bytes=most_mb * 1_000_000, on_start=on_start)
