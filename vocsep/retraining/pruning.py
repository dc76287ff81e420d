"""Bounds on what runs and evaluations leave on the disk; what other programs keep in the same folders stays."""

import re
from pathlib import Path

from storage.files import remove
from vocsep.retraining.job import JOB_NAME, is_job
from vocsep.training.run_folder import CHECKPOINTS, FAILED, RUN_NAME, in_use, is_run

LATEST = "latest"
_REPORT_NAME = re.compile(r"\d{8}-\d{6}-(estimates|(retrain-)?model\d*)(-\d+)?")


def prune_runs(runs: Path, keep: int) -> list[Path]:
    """Delete the checkpoints of all but the `keep` newest runs, at any depth; what they logged stays, it is small.

    Runs that a process holds stay as they are. Returns the folders of the others.
    """
    found = [path.parent for path in runs.rglob(RUN_NAME) if path.parent.name != FAILED and is_run(path.parent)]
    found.sort(key=lambda run: (run / RUN_NAME).stat().st_mtime)
    pruned = []
    for run in found[: max(0, len(found) - keep)]:
        held = [folder for folder in (run / CHECKPOINTS, run / FAILED) if folder.is_dir()]
        if held and not in_use(run):
            for folder in held:
                remove(folder)
            pruned.append(run)
    return pruned


def prune_reports(reports: Path, keep: int) -> list[Path]:
    """Delete all but the `keep` newest reports and the one that `latest` points to; returns their folders."""
    if not reports.is_dir():
        return []
    latest = (reports / LATEST).resolve()
    found = [path for path in reports.iterdir() if _REPORT_NAME.fullmatch(path.name) and _is_folder(path)]
    found.sort(key=lambda folder: folder.stat().st_mtime)
    pruned = [folder for folder in found[: max(0, len(found) - keep)] if folder.resolve() != latest]
    for folder in pruned:
        remove(folder)
    return pruned


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def prune_jobs(jobs: Path, keep: int) -> None:
    """Delete all but the `keep` newest retraining jobs, whose records are small."""
    found = sorted(path.parent for path in jobs.glob(f"*/{JOB_NAME}") if is_job(path.parent))
    for folder in found[: max(0, len(found) - keep)]:
        remove(folder)
