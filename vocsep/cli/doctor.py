"""`vocsep doctor`: what is wrong with a training set-up, before it costs hours."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vocsep.cli.main import OTHERS
from vocsep.paths import DOCTOR

app = typer.Typer()


@app.command(help=OTHERS["doctor"])
def doctor(
    config: Annotated[
        str | None, typer.Option(help="YAML file of settings, or a system's name; default: the default settings.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Spectrogram store; default: a few demo songs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, and nothing else.")] = False,
    html: Annotated[Path, typer.Option(help="Page with the pictures.")] = DOCTOR / "doctor.html",
) -> None:
    """Check songs, objective and network; exit code 1 if a check fails."""
    from vocsep.config import validated
    from vocsep.training.config import TrainConfig
    from vocsep.training.settings_files import load_settings

    settings = validated(TrainConfig, load_settings(config) if config else {}, config or "defaults")
    # The rest takes seconds to import: a mistake in the settings is told before.
    from storage.files import write_atomically
    from storage.store import SpectrogramStore
    from vocsep.doctor import report as doctor_report
    from vocsep.doctor.diagnosis import Diagnosis, demo_store, examine

    opened = SpectrogramStore.open(store) if store else demo_store(DOCTOR, settings)
    about = {"config": config or "defaults", "store": str(opened.path)}
    findings = []
    for finding in examine(settings, opened):
        findings.append(finding)
        if not as_json:
            typer.echo("\n".join(doctor_report.as_lines(finding)))
    diagnosis = Diagnosis(tuple(findings))
    write_atomically(html, doctor_report.as_html(diagnosis, about).encode())
    if as_json:
        typer.echo(json.dumps(doctor_report.as_json(diagnosis, about), indent=1, allow_nan=False))
    else:
        typer.echo(f"\n{doctor_report.in_short(diagnosis)}; pictures: {html}")
    if diagnosis.status == "fail":
        raise typer.Exit(1)
