"""Learning curves of a run as a picture, from its `metrics.csv`."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from vocsep.training.log import METRICS_NAME, read_metrics


def newest_run(runs: Path) -> Path | None:
    """The run that was logged to last, None if there is none."""
    logs = sorted(runs.glob(f"*/{METRICS_NAME}"), key=lambda path: path.stat().st_mtime)
    return logs[-1].parent if logs else None


def learning_curves(run: Path) -> bytes:
    """PNG of a run's loss, learning rate, speed and validation SDR over its steps."""
    rows = read_metrics(run)
    figure = Figure(figsize=(12, 3.2))
    axes = figure.subplots(1, 3)
    panels = (("train/loss", "loss"), ("valid/sdr_db", "validation SDR, dB"), ("train/learning_rate", "learning rate"))
    for axis, (column, title) in zip(axes, panels, strict=True):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else "") if points else None
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    return content.getvalue()
