"""Flow `recipe`: make a model from a recipe's data sets, score it, and describe it."""

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import dask_map
from flows.failures import HOOKS, failing_in_one_line, result_of
from flows.naming import flow_run_name, task_run_name
from flows.reporting import ProgressArtifact
from vocsep.recipes import step
from vocsep.recipes.step import RecipeConfig, RecipeResult
from vocsep.sessions import at_low_priority
from vocsep.tables import plain


def _name(config: RecipeConfig) -> str:
    """As in `recipe bundled`."""
    return f"recipe {config.recipe.stem}"


@task(name="make model", task_run_name=task_run_name(_name), cache_policy=NO_CACHE)
@failing_in_one_line
def make_model(config: RecipeConfig) -> RecipeResult:
    """Preprocess and score on Dask, train in this process."""
    artifact = ProgressArtifact("recipe-progress", "Share of the songs that are done")
    # It takes hours.
    with at_low_priority(), dask_map(None, "recipe") as mapped:
        result = step.make_model(config, progress=artifact.update, map=mapped)
    create_markdown_artifact(
        "\n".join(map(plain, result.lines())),
        key="recipe-result",
        description="The model that was made, and its scores",
    )
    return result


@flow(name="recipe", flow_run_name=flow_run_name(_name), **HOOKS)
@failing_in_one_line
def recipe(config: RecipeConfig = RecipeConfig()) -> RecipeResult:  # noqa: B008 (Prefect reads it)
    """Make a model from a recipe: fetch, preprocess, train, score, describe."""
    return result_of(make_model, config)
