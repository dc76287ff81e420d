"""What there is besides the songs: models with their scores, reports of evaluations, Prefect's UI where it runs."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.errors import UserError
from storage.files import read_json
from storage.registry import ModelRegistry, ModelVersion
from vocsep.evaluation.report.facts import at, number, training_total
from vocsep.models.registry import open_registry
from vocsep.paths import SERVE

REPORT = "report.html"
_MOST_POINTS = 500


def models(path: Path) -> list[dict[str, Any]]:
    """The models that songs can be separated with, the newest first and the bundled one last; damaged ones say so."""
    registry = open_registry(path)
    in_use = _champion(registry)
    names = [*map(str, reversed(registry.versions())), "bundled"]
    found = []
    for name in names:
        facts: dict[str, Any] = {"name": name, "in_use": name == (str(in_use) if in_use else "bundled")}
        try:
            facts |= _facts(registry.open(name))
        except UserError:
            facts["error"] = "damaged"
        found.append(facts)
    return found


def _champion(registry: ModelRegistry) -> int | None:
    with contextlib.suppress(UserError):
        return registry.champion()
    return None


def _facts(model: ModelVersion) -> dict[str, Any]:
    """What the page shows of a model: only what exists and has the right type."""
    content = model.description

    def figure(*place: str) -> float | None:
        return number(at(content, *place))

    def text(*place: str) -> str:
        value = at(content, *place)
        return value if isinstance(value, str) else ""

    sources = ("vocals", "accompaniment")
    rows = ("model", "mixture", "irm1")
    history = content.get("history")
    points = [point for point in history if isinstance(point, dict)] if isinstance(history, list) else []
    return {
        "created": text("created"),
        "licence": text("licence"),
        "dataset": text("data", "dataset"),
        "network": text("training", "network") or "unet",
        "loss": text("training", "objective", "loss"),
        "steps": training_total(content, "steps_done"),
        "minutes": (training_total(content, "seconds") or 0) / 60,
        "sample_rate": figure("spectrogram", "sample_rate"),
        "n_fft": figure("spectrogram", "n_fft"),
        "hop_length": figure("spectrogram", "hop_length"),
        "valid_sdr_db": figure("metrics", "valid_sdr_db"),
        "valid_floor_sdr_db": figure("metrics", "valid_floor_sdr_db"),
        "test_songs": figure("scores", "songs"),
        "test": {
            row: {source: figure("scores", "rows", row, source, "SDR", "median") for source in sources} for row in rows
        },
        "history": [
            {name: point.get(name) for name in ("step", "valid_sdr_db", "train_loss")}
            for point in points[-_MOST_POINTS:]
            if all(number(point.get(name)) is not None for name in ("step", "valid_sdr_db", "train_loss"))
        ],
    }


def reports(path: Path) -> list[dict[str, Any]]:
    """The evaluations whose report is in a folder, the newest first."""
    found = []
    for folder in _report_folders(path):
        summary: Any = {}
        with contextlib.suppress(OSError, ValueError):
            summary = read_json(folder / "summary.json")
        scores = {}
        for source in ("vocals", "accompaniment"):
            if (median := number(at(summary, "rows", "model", source, "SDR", "median"))) is not None:
                scores[source] = median
        subject = summary.get("subject") if isinstance(summary, dict) else None
        songs = summary.get("songs") if isinstance(summary, dict) else None
        found.append(
            {
                "id": folder.name,
                "subject": subject if isinstance(subject, str) else "",
                "songs": songs if isinstance(songs, int) else None,
                "scores": scores,
            }
        )
    return found


def report(path: Path, name: str) -> Path | None:
    """The page of a report that `reports` lists."""
    return next((folder / REPORT for folder in _report_folders(path) if folder.name == name), None)


def _report_folders(path: Path) -> Iterator[Path]:
    """Folders with a report, the newest first; links lead elsewhere and are none."""
    if path.is_dir():
        for folder in sorted(path.iterdir(), key=lambda entry: entry.name, reverse=True):
            page = folder / REPORT
            if not folder.is_symlink() and page.is_file() and not page.is_symlink():
                yield folder


def prefect_url() -> str | None:
    """Address of Prefect's UI, where `make serve` runs in this folder."""
    try:
        port = read_json(SERVE / "serve.json")["port"]
        with socket.create_connection(("127.0.0.1", int(port)), timeout=0.3):
            return f"http://127.0.0.1:{int(port)}"
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
