"""The step `compare`: the systems of the original analysis, trained side by side, and the report."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from storage.errors import UserError
from storage.store import SpectrogramStore
from vocsep.comparison.config import ComparisonConfig
from vocsep.comparison.report import REPORT_NAME, write_comparison
from vocsep.comparison.runs import check_comparison, run_comparison
from vocsep.config import Settings
from vocsep.paths import ALL_BINS_STORE, COMPARISON
from vocsep.preprocessing.config import store_of_all_bins
from vocsep.preprocessing.location import StoreLocation, held_manifest, on_disk
from vocsep.progress import Progress
from vocsep.tables import aligned


class CompareConfig(Settings):
    """What is compared, from which store, and where the report goes.

    The store must hold all bins (`make preprocess PRESET=fine-513 STORE=data/all-bins.zarr`) where a system wants them.
    """

    comparison: ComparisonConfig = ComparisonConfig()
    store: StoreLocation = Field(default=ALL_BINS_STORE, description="Store with all bins: a folder, or a URL.")
    output: Path = Field(default=COMPARISON, description="Folder of the comparison: runs and report.")


@dataclass(frozen=True)
class CompareResult:
    """Where the report is, and what it says in short."""

    report: str
    runs: int
    failed: int
    table: tuple[tuple[str, ...], ...]
    answers: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"compare: {self.runs} runs, {self.failed} of them failed",
            *(f"  {line}" for line in (*aligned(self.table), *self.answers)),
            f"  report: {self.report}",
        ]


def _opened(config: CompareConfig) -> SpectrogramStore:
    """The store, with the songs that are trained and validated on."""
    if held_manifest(config.store) is None:
        raise UserError(f"{config.store}: no store; run {store_of_all_bins(config.store)}")
    return SpectrogramStore.open(on_disk(config.store, ("train", "valid")))


def check(config: CompareConfig) -> None:
    """Raise `UserError` if a system is unknown, or the store lacks songs or bins."""
    check_comparison(config.comparison, _opened(config))


def compare(config: CompareConfig, *, progress: Progress | None = None) -> CompareResult:
    """Train what is not trained yet, in this process, and report what made the difference.

    Parameters
    ----------
    progress
        Called with the trainings that are done, in parts too, of how many.

    Raises
    ------
    UserError
        If a system is unknown, or the store lacks songs or bins.
    TrainingStopped
        If the process was told to end; the same call resumes there.

    Examples
    --------
    >>> compare(CompareConfig()).answers  # doctest: +SKIP
    """
    store = _opened(config)
    results = run_comparison(config.comparison, store, config.output, progress)
    summary = write_comparison(config.output, config.comparison, store, results)
    return CompareResult(
        report=str(config.output / REPORT_NAME),
        runs=len(results),
        failed=sum(result.failed is not None for result in results),
        table=tuple(tuple(line) for line in summary["table"]),
        answers=tuple(summary["answers"]),
    )
