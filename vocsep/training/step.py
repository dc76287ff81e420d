"""The step `train`: train a model from a store and add it to the registry."""

from pathlib import Path

from pydantic import Field

from storage.errors import UserError
from storage.store import SpectrogramStore
from vocsep.config import Settings
from vocsep.models.registry import open_registry
from vocsep.paths import MODELS, RUNS, STORE
from vocsep.preprocessing.location import StoreLocation, on_disk, require_store
from vocsep.progress import Progress
from vocsep.training.config import TrainConfig
from vocsep.training.fit import TrainResult, fit
from vocsep.training.processes import Place, place, run_in_processes
from vocsep.training.stopping import TrainingStopped


class TrainJob(Settings):
    """What to train, from which songs, and where the results go."""

    training: TrainConfig = Field(default=TrainConfig(), description="How the model is trained.")
    store: StoreLocation = Field(
        default=STORE, description="Spectrogram store: a folder, or a URL such as s3://bucket/name.zarr."
    )
    models: Path = Field(default=MODELS, description="Model registry.")
    runs: Path = Field(default=RUNS, description="Folder for runs: curves, checkpoints.")
    resume: str = Field(
        default="auto",
        description="auto: resume an unfinished run of these settings and songs; never; or a run's folder.",
    )


def check(job: TrainJob) -> None:
    """Raise `UserError` if the job cannot begin."""
    require_store(job.store)


def train(job: TrainJob, *, progress: Progress | None = None, promote: bool = True) -> TrainResult | None:
    """Train a model (see `vocsep.training.fit.fit`) with as many processes as `training.devices` says.

    Parameters
    ----------
    progress
        Called after every step with the used share of the budget, and 1; not with several processes.
    promote
        Whether the new model becomes the champion if it is better.

    Returns
    -------
    result
        None in all but the first of several processes that torchrun or SLURM started.

    Raises
    ------
    UserError
        As `fit`, or if a process of several failed.
    TrainingStopped
        If a signal ended the run; it is saved and can resume.

    Examples
    --------
    >>> train(TrainJob(training=TrainConfig(max_minutes=60))).valid_sdr_db  # doctest: +SKIP
    """
    folder = on_disk(job.store, ("train", "valid"))
    devices = job.training.devices
    if devices == 1 or place() != Place():
        store, registry = SpectrogramStore.open(folder), open_registry(job.models)
        return fit(job.training, store, registry, job.runs, job.resume, progress, promote)
    content = {"job": job.model_copy(update={"store": folder}).model_dump(mode="json"), "promote": promote}
    answer, number = run_in_processes(devices, "vocsep.training", content)
    if answer is not None:
        return TrainResult(**answer)
    if number:
        raise TrainingStopped(str(job.runs), None, number)
    raise UserError(f"training on {devices} devices failed; see its messages above")
