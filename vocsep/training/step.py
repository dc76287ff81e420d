"""The step `train`: a store to a model in the registry."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from vocsep.config import Settings
from vocsep.paths import MODELS, RUNS, STORE
from vocsep.preprocessing.location import StoreLocation, on_disk, require_store
from vocsep.progress import Progress
from vocsep.training.config import TrainConfig

if TYPE_CHECKING:
    from vocsep.training.fit import TrainResult


class TrainJob(Settings):
    """How a model is trained, from what, and where it goes."""

    training: TrainConfig = TrainConfig()
    store: StoreLocation = Field(
        default=STORE, description="Spectrogram store: a folder, or a URL such as s3://bucket/name.zarr."
    )
    models: Path = Field(default=MODELS, description="Model registry.")
    runs: Path = Field(default=RUNS, description="Folder for runs: curves, checkpoints.")
    resume: str = Field(
        default="auto", description="auto: go on with an unfinished run of these settings; never; or a run's folder."
    )


def check(job: TrainJob) -> None:
    """Raise `UserError` unless there is a store."""
    require_store(job.store)


def train(job: TrainJob, *, progress: Progress | None = None, promote: bool = True) -> "TrainResult | None":
    """Train a model and add the weights that scored best on the validation songs to the registry.

    Parameters
    ----------
    progress
        Called after every step with the used share of the budget, of 1.
    promote
        Whether the model may become the champion.

    Returns
    -------
    result
        None in all but the first of several processes.

    Raises
    ------
    UserError
        If songs, settings and machine do not go together, or loss or gradients are not finite.
    TrainingStopped
        If the process was told to end; the run is saved and can go on.

    Examples
    --------
    >>> train(TrainJob(training=TrainConfig(max_minutes=60))).valid_sdr_db  # doctest: +SKIP
    """
    from vocsep.training import launch

    def on_progress(used: float) -> None:
        if progress is not None:
            progress(used, 1.0)

    store = on_disk(job.store, ("train", "valid"))
    return launch.train(job.training, store, job.models, job.runs, job.resume, on_progress, promote)
