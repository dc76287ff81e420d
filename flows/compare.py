"""Flow `compare`: train the systems of the original analysis side by side, and report what made the difference."""

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name, task_run_name
from flows.reporting import ProgressArtifact
from vocsep.comparison import step
from vocsep.comparison.step import CompareConfig, CompareResult
from vocsep.tables import markdown_table


def _name(config: CompareConfig) -> str:
    """As in `compare 6 systems`."""
    return f"compare {len(config.comparison.systems)} systems"


@task(name="train systems", task_run_name=task_run_name(_name), cache_policy=NO_CACHE)
@failing_in_one_line
def train_systems(config: CompareConfig) -> CompareResult:
    """Train what is not trained yet, in this process (Dask workers may not have child processes), and report."""
    artifact = ProgressArtifact("compare-progress", "Share of the trainings that are done")
    result = step.compare(config, progress=artifact.update)
    answers = "\n".join(f"- {answer}" for answer in result.answers)
    create_markdown_artifact(
        f"{markdown_table(result.table)}\n\n{answers}",
        key="comparison",
        description="What made the difference between the systems",
    )
    return result


@flow(name="compare", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def compare(config: CompareConfig = CompareConfig()) -> CompareResult:  # noqa: B008 (Prefect reads it)
    """Train the systems of the original analysis side by side and say what made the difference."""
    return result_of(train_systems, config)
