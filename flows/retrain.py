"""Flow `retrain`: take in what changed, train a challenger, and let it take the champion's place if it is better."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.evaluate import score_songs
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name
from flows.preprocess import preprocess_songs
from flows.reporting import shown
from flows.train import budget, fit_model
from vocsep.retraining import step
from vocsep.retraining.step import RetrainConfig, RetrainResult, Steps


def _name(config: RetrainConfig) -> str:
    """As in `retrain tfc-tdf, 60 min`."""
    return f"retrain {config.training.network}, {budget(config.training)}"


@flow(name="retrain", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def retrain(config: RetrainConfig = RetrainConfig()) -> RetrainResult:  # noqa: B008 (Prefect reads it)
    """Add new and changed songs, drop removed ones, train a challenger, promote it if it beats the champion."""
    tasks = Steps(
        preprocess=lambda wanted: result_of(preprocess_songs, wanted),
        train=lambda job: result_of(fit_model, job, promote=False),
        evaluate=lambda wanted, folder: result_of(score_songs, wanted, folder),
    )
    return shown(lambda: step.retrain(config, steps=tasks), _show)


def _show(result: RetrainResult) -> None:
    create_markdown_artifact(result.report, key="retrain-report", description="What was decided, and why")
