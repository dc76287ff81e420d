"""Training systems side by side: same patches, seed, budget and network, and nothing but the objective different.

A comparison is a folder. Every run has its own folder in it, named by all that decides the run, so that a finished run
is never repeated, a killed run resumes, and several processes may share the work.
"""

import contextlib
import gc
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import UserError
from storage.files import read_json, remove, value_digest, write_json
from storage.lock import InUse, locked
from storage.store import SpectrogramStore
from vocsep.comparison.config import ComparisonConfig
from vocsep.comparison.objectives import objectives
from vocsep.models.constant_masks import best_constant_mask
from vocsep.models.registry import open_registry
from vocsep.progress import Progress
from vocsep.training.checks import check_bins, check_songs
from vocsep.training.config import TrainConfig
from vocsep.training.description import training_digest
from vocsep.training.fit import fit
from vocsep.training.probe import open_probe
from vocsep.training.run_folder import CHECKPOINTS, FAILED, RUN_NAME

RESULT_NAME = "result.json"
# Losses that the curves are measured against come from the patches of this number of steps.
PROBED_STEPS = 8


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training: what it is called, and its settings."""

    name: str
    config: TrainConfig


def runs(config: ComparisonConfig) -> list[Run]:
    """All trainings, seed by seed, so that a comparison that was broken off has whole seeds."""
    chosen = objectives(config)
    return [
        Run(f"{name}, seed {seed}", config.training(objective, seed))
        for seed in range(config.seeds)
        for name, objective in chosen.items()
    ]


def check_comparison(config: ComparisonConfig, store: SpectrogramStore) -> None:
    """Refuse what can be found wrong before the first step.

    Raises
    ------
    UserError
        If a system is not known, or the store lacks songs or bins.
    """
    for run in runs(config):
        check_songs(store, run.config)
        check_bins(store, run.config)


def run_comparison(
    config: ComparisonConfig, store: SpectrogramStore, output: Path, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Train all that is not trained yet, and return what every run came to, in the order of `runs`.

    A run that fails (a loss that is not finite) is part of the answer; the others continue. Progress is that of runs.

    Raises
    ------
    UserError
        As `check_comparison`; and if another process is still training a part of it.
    TrainingStopped
        If the process was told to end; the same call resumes there.
    """
    check_comparison(config, store)
    wanted = runs(config)
    results: list[dict[str, Any] | None] = []
    for number, run in enumerate(wanted):

        def follow(done: float, total: float, number: int = number) -> None:
            if progress is not None:
                progress(number + done / total, len(wanted))

        results.append(_result(run, store, output, follow))
        log.info("%d of %d: %s: %s", number + 1, len(wanted), run.name, _in_words(results[-1]))
        follow(1, 1)
    # Those that another process had begun may be finished by now.
    results = [result or load_result(run, store, output) for result, run in zip(results, wanted, strict=True)]
    missing = [run.name for result, run in zip(results, wanted, strict=True) if result is None]
    if missing:
        raise UserError(
            f"{output}: {len(missing)} runs are still trained by another process ({missing[0]}, ...); run this again "
            "when it is done"
        )
    return [result for result in results if result is not None]


def folder_of(run: Run, store: SpectrogramStore, output: Path) -> Path:
    """Where a run lives: the same place for the same settings and songs."""
    settings = run.config.identity() | {"steps": run.config.steps, "validations": run.config.validations}
    return output / "runs" / value_digest({"config": settings, "data": training_digest(store)})[:16]


def load_result(run: Run, store: SpectrogramStore, output: Path) -> dict[str, Any] | None:
    """What a finished run came to; None if it is not finished."""
    path = folder_of(run, store, output) / RESULT_NAME
    return read_json(path) | {"name": run.name} if path.is_file() else None


def _result(run: Run, store: SpectrogramStore, output: Path, progress: Progress) -> dict[str, Any] | None:
    """What a run came to, trained if need be; None while another process trains it."""
    found = load_result(run, store, output)
    if found is not None:
        return found
    folder = folder_of(run, store, output)
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(folder / ".lock"))
        except InUse:
            return None
        # It may have been finished just now.
        result = load_result(run, store, output) or _train(run, store, folder, progress)
    # Trainer and songs hold each other in memory; there are too few of them for Python to look by itself.
    gc.collect()
    return result


def _train(run: Run, store: SpectrogramStore, folder: Path, progress: Progress) -> dict[str, Any]:
    registry = open_registry(folder / "models")
    probe = open_probe(run.config, store, PROBED_STEPS)
    objective, network = run.config.objective, probe.network
    _, constant_loss = best_constant_mask(objective, network.kept(probe.mixture), network.kept(probe.vocals))
    result: dict[str, Any] = {
        "name": run.name,
        "objective": objective.model_dump(mode="json"),
        "seed": run.config.seed,
        "start_loss": probe.start_loss(),
        "constant_loss": constant_loss,
    }
    try:
        if _finished(folder / "runs") is None:
            fit(run.config, store, registry, folder / "runs", "auto", progress)
        description = _finished(folder / "runs")
        assert description is not None
        result |= {
            "history": description["history"],
            "floor_db": description["metrics"]["valid_floor_sdr_db"],
            "steps": description["training"]["steps_done"],
            "seconds": description["training"]["seconds"],
            "failed": None,
        }
    except UserError as error:
        # A loss that is not finite is a result; a full disk is none.
        if not any((folder / "runs").glob(f"*/{FAILED}")):
            raise
        result |= {"history": [], "failed": str(error)}
    write_json(folder / RESULT_NAME, result)
    for checkpoints in (folder / "runs").glob(f"*/{CHECKPOINTS}"):
        remove(checkpoints)
    return result


def _finished(folder: Path) -> dict[str, Any] | None:
    """`run.json` of a run that is at its end."""
    for path in folder.glob(f"*/{RUN_NAME}"):
        content: dict[str, Any] = read_json(path)
        if content.get("status") == "finished":
            return content
    return None


def _in_words(result: dict[str, Any] | None) -> str:
    if result is None:
        return "in another process's hands"
    return result["failed"] or f"validation SDR {result['history'][-1]['valid_sdr_db']:.2f} dB"
