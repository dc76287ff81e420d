"""Flow `compare`: train the systems of the original analysis side by side, and report what made the difference."""

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.reporting import ProgressArtifact, failing_in_one_line, result_of, say_what_to_do
from storage.errors import UserError
from storage.store import SpectrogramStore
from vocsep.comparison.config import ComparisonConfig
from vocsep.comparison.report import REPORT_NAME, write_comparison
from vocsep.comparison.runs import check_comparison, run_comparison
from vocsep.config import Settings
from vocsep.paths import ALL_BINS_STORE, COMPARISON
from vocsep.preprocessing.location import StoreLocation, held_manifest, on_disk
from vocsep.tables import aligned, markdown_table


class CompareConfig(ComparisonConfig):
    """Parameters of the flow: those of the comparison, and where things are.

    `store` must hold all bins (`make preprocess PRESET=fine-513 STORE=data/all-bins.zarr`) where a system wants them.
    """

    store: StoreLocation = ALL_BINS_STORE
    output: Path = COMPARISON


class CompareResult(Settings):
    """Where the report is, and what it says in short."""

    report: str
    runs: int
    failed: int
    lines: tuple[str, ...]


def opened(config: CompareConfig) -> SpectrogramStore:
    """The store, with the songs that are trained and validated on."""
    if held_manifest(config.store) is None:
        raise UserError(f"{config.store}: no store; run make preprocess PRESET=fine-513 STORE={config.store}")
    return SpectrogramStore.open(on_disk(config.store, ("train", "valid")))


def check(config: CompareConfig) -> None:
    """Raise `UserError` for whatever can be told to be wrong before anything is started."""
    check_comparison(config, opened(config))


@task(name="train systems", cache_policy=NO_CACHE)
@failing_in_one_line
def train_systems(config: CompareConfig) -> CompareResult:
    """Train what is not trained yet, in this process (Dask workers may not have child processes), and report."""
    artifact = ProgressArtifact("compare-progress", "Share of the trainings that are done")
    store = opened(config)
    comparison = ComparisonConfig.model_validate(config.model_dump(include=set(ComparisonConfig.model_fields)))
    results = run_comparison(comparison, store, config.output, artifact.update)
    summary = write_comparison(config.output, comparison, store, results)
    answers = "\n".join(f"- {answer}" for answer in summary["answers"])
    create_markdown_artifact(f"{markdown_table(summary['table'])}\n\n{answers}", key="comparison")
    return CompareResult(
        report=str(config.output / REPORT_NAME),
        runs=len(results),
        failed=sum(result["failed"] is not None for result in results),
        lines=(*aligned(summary["table"]), *summary["answers"]),
    )


@flow(name="compare", on_failure=[say_what_to_do], on_crashed=[say_what_to_do])
@failing_in_one_line
def compare(config: CompareConfig = CompareConfig()) -> CompareResult:  # noqa: B008 (Prefect reads it)
    """Train the systems of the original analysis side by side and say what made the difference."""
    return result_of(train_systems, config)
