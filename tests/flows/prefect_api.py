"""What a Prefect server says of runs and artifacts."""

import json
import urllib.request
from pathlib import Path
from typing import Any

from vocsep.training.log import read_metrics


def found(server: str, what: str, **conditions: Any) -> list[dict[str, Any]]:
    """Objects of a Prefect server, newest first."""
    request = urllib.request.Request(
        f"{server}/{what}/filter", data=json.dumps(conditions).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        objects: list[dict[str, Any]] = json.loads(answer.read())
    return sorted(objects, key=lambda one: str(one["created"]), reverse=True)


def artifacts(server: str, key: str) -> list[dict[str, Any]]:
    return found(server, "artifacts", artifacts={"key": {"any_": [key]}})


def last_step(runs: Path) -> int:
    return max((int(row["step"]) for run in runs.glob("*") for row in read_metrics(run)), default=0)
