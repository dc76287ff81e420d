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

from pydantic import BaseModel

from storage.errors import UserError, one_line
from storage.files import read_json, remove, value_digest, write_json
from storage.lock import InUse, locked
from storage.store import SpectrogramStore
from vocsep.comparison.config import ComparisonConfig
from vocsep.comparison.objectives import objectives
from vocsep.config import validated
from vocsep.models.constant_masks import best_constant_mask
from vocsep.models.objective_config import Objective
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


class Point(BaseModel):
    """A validation of a run: its step, SDR in dB (median and mean over the songs), and the smoothed training loss."""

    step: int
    valid_sdr_db: float
    valid_mean_sdr_db: float | None = None
    train_loss: float


class RunResult(BaseModel):
    """What a run came to.

    Attributes
    ----------
    start_loss, constant_loss
        Of the untrained network, and of the best single mask for everything.
    history
        All validations; none if the run failed.
    failed
        Why it did not reach its end.
    floor_db
        SDR of the mixture itself.
    """

    name: str
    objective: Objective
    seed: int
    start_loss: float
    constant_loss: float
    history: list[Point] = []
    failed: str | None = None
    floor_db: float | None = None
    steps: int | None = None
    seconds: float = 0.0

    @property
    def sdr_db(self) -> float:
        """Validation SDR at the end."""
        return self.history[-1].valid_sdr_db

    @property
    def loss(self) -> float:
        """Training loss at the end."""
        return self.history[-1].train_loss


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
) -> list[RunResult]:
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
    results: list[RunResult | None] = []
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


def load_result(run: Run, store: SpectrogramStore, output: Path) -> RunResult | None:
    """What a finished run came to; None if it is not finished. `UserError` if its file is damaged."""
    path = folder_of(run, store, output) / RESULT_NAME
    if not path.is_file():
        return None
    try:
        return validated(RunResult, {**read_json(path), "name": run.name}, str(path))
    except (OSError, TypeError, ValueError) as error:
        raise one_line(path, "read", error) from None


def _result(run: Run, store: SpectrogramStore, output: Path, progress: Progress) -> RunResult | None:
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


def _train(run: Run, store: SpectrogramStore, folder: Path, progress: Progress) -> RunResult:
    registry = open_registry(folder / "models")
    probe = open_probe(run.config, store, PROBED_STEPS)
    objective, network = run.config.objective, probe.network
    _, constant_loss = best_constant_mask(objective, network.kept(probe.mixture), network.kept(probe.vocals))
    result = RunResult(
        name=run.name,
        objective=objective,
        seed=run.config.seed,
        start_loss=probe.start_loss(),
        constant_loss=constant_loss,
    )
    try:
        if _finished(folder / "runs") is None:
            fit(run.config, store, registry, folder / "runs", "auto", progress)
        description = _finished(folder / "runs")
        assert description is not None
        result.history = [Point.model_validate(point) for point in description["history"]]
        result.floor_db = description["metrics"]["valid_floor_sdr_db"]
        result.steps = description["training"]["steps_done"]
        result.seconds = description["training"]["seconds"]
    except UserError as error:
        # A loss that is not finite is a result; a full disk is none.
        if not any((folder / "runs").glob(f"*/{FAILED}")):
            raise
        result.failed = str(error)
    write_json(folder / RESULT_NAME, result.model_dump(mode="json"))
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


def _in_words(result: RunResult | None) -> str:
    if result is None:
        return "in another process's hands"
    return result.failed or f"validation SDR {result.sdr_db:.2f} dB"
