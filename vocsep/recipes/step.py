"""The step `recipe`: from a recipe's data sets to a trained, scored and described model."""

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from storage.errors import UserError
from storage.files import value_digest
from vocsep.config import Settings
from vocsep.evaluation.config import EvaluateConfig
from vocsep.evaluation.step import evaluate
from vocsep.mapping import Map, SomeFailed, serial
from vocsep.models.registry import open_registry
from vocsep.paths import RECIPES
from vocsep.preprocessing.step import PreprocessConfig, preprocess
from vocsep.progress import Progress
from vocsep.recipes.bundle import require_bundle, write_bundle
from vocsep.recipes.checks import run_check
from vocsep.recipes.config import Music, Recipe, SongSource, load_recipe
from vocsep.recipes.packages import fetch_music
from vocsep.spectrograms.config import load_spectrogram_config
from vocsep.training.run_folder import finished_version
from vocsep.training.songs import ExtraStore
from vocsep.training.step import TrainJob, train

log = logging.getLogger(__name__)


class RecipeConfig(Settings):
    """Which recipe, and where what it makes goes."""

    recipe: Path = Field(default=Path("recipes/bundled.yaml"), description="The recipe, a YAML file.")
    work: Path = Field(default=RECIPES, description="Folder for fetched music, stores, runs and reports.")
    output: Path = Field(default=RECIPES / "model", description="Folder of the finished model; it is replaced.")


@dataclass(frozen=True)
class RecipeResult:
    """Where the model is, and its scores on the test songs: medians in dB."""

    model: str
    report: str
    vocals_sdr_db: float
    accompaniment_sdr_db: float

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"recipe: vocals SDR {self.vocals_sdr_db:.2f} dB, accompaniment {self.accompaniment_sdr_db:.2f} dB",
            f"  model in {self.model}, with its card; report: {self.report}",
        ]


def check(config: RecipeConfig) -> None:
    """Raise `UserError` if there is no such recipe, songs are missing, or the output is something else."""
    recipe = load_recipe(config.recipe)
    load_spectrogram_config(recipe.preset)
    for one in (*recipe.sets, *recipe.checks):
        if one.path is not None and not one.path.is_dir():
            raise UserError(f"{config.recipe}: {one.name}: no such folder: {one.path}")
    require_bundle(config.output)


def make_model(config: RecipeConfig, *, progress: Progress | None = None, map: Map = serial) -> RecipeResult:
    """Fetch, preprocess, train, score and describe; what is done already is not done again.

    Parameters
    ----------
    progress, map
        Of preprocessing and scoring.

    Raises
    ------
    UserError
        If songs are missing or the recipe is wrong.
    TrainingStopped
        If the process was told to end; the same call resumes there.

    Examples
    --------
    >>> from pathlib import Path
    >>> make_model(RecipeConfig(recipe=Path("recipes/bundled.yaml"))).vocals_sdr_db  # doctest: +SKIP
    """
    check(config)
    recipe = load_recipe(config.recipe)
    # All of it first: a package that cannot be fetched is known before hours of work.
    songs = {one.name: _songs(config, one) for one in (*recipe.sets, *recipe.checks)}
    stores = [_store(config, recipe, one, songs[one.name], progress, map) for one in recipe.sets]
    models = config.work / "models"
    versions: list[str] = []
    for count in range(len(recipe.trainings())):
        versions.append(_trained(config, recipe, count, stores, versions[-1] if versions else None))
    first = recipe.sets[0]
    evaluation = EvaluateConfig(
        model=versions[-1],
        models=models,
        dataset=songs[first.name],
        kind=first.kind,
        store=stores[0],
        reports=config.work / "reports",
    )
    report = evaluate(evaluation, progress=progress, map=map)
    found = {
        one.name: run_check(one, songs[one.name], evaluation, progress, map, songs[one.over] if one.over else None)
        for one in recipe.checks
    }
    trained = [open_registry(models).open(version) for version in versions]
    write_bundle(trained, recipe, report.summary, found, config.output)
    scores = report.summary["rows"]["model"]
    return RecipeResult(
        str(config.output), report.report, scores["vocals"]["SDR"]["median"], scores["accompaniment"]["SDR"]["median"]
    )


def _trained(config: RecipeConfig, recipe: Recipe, number: int, stores: list[Path], before: str | None) -> str:
    """The version that a training of the recipe made, counted from 0, which starts from the version before."""
    models = config.work / "models"
    # What was changed in a recipe, and what comes after that, begins anew; the rest resumes, or is done.
    content = recipe.model_dump(mode="json", exclude={"title", "further", "checks"})
    further = recipe.model_dump(mode="json")["further"][:number]
    runs = config.work / "runs" / value_digest(content | {"further": further} if further else content)[:16]
    version = finished_version(runs, open_registry(models))
    if version is None:
        training, shares = recipe.trainings()[number]
        extra = tuple(
            ExtraStore(store=store, vocals=shares[one.name].vocals, accompaniment=shares[one.name].accompaniment)
            for one, store in zip(recipe.sets[1:], stores[1:], strict=True)
        )
        training = training.model_copy(update={"extra": extra, "fine_tune": before or training.fine_tune})
        result = train(TrainJob(training=training, store=stores[0], models=models, runs=runs), promote=False)
        assert result is not None
        version = result.version
    return str(version)


def _songs(config: RecipeConfig, one: Music) -> Path:
    return one.path or fetch_music(one.packages, config.work / "music" / one.name)


def _store(
    config: RecipeConfig, recipe: Recipe, one: SongSource, songs: Path, progress: Progress | None, map: Map
) -> Path:
    """The store of a data set, brought up to date; songs that cannot be used are named and left out."""
    store = config.work / f"{one.name}.zarr"
    # Pruned: songs that an earlier state of the recipe had would be trained on, too.
    wanted = PreprocessConfig(dataset=songs, kind=one.kind, preset=recipe.preset, store=store, prune=True)
    try:
        result = preprocess(wanted, progress=progress, map=map)
    except SomeFailed as some:
        log.warning("%s: %s", one.name, some)
        result = some.result
    log.info("%s: %.1f hours in %s", one.name, result.songs_hours, store)
    return store
