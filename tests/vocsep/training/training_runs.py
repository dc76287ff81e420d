"""Tiny stores and runs for the tests of training, in this process and in others that can be killed."""

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

import vocsep.cli.main
from storage.checkpoints import Checkpoint, CheckpointFolder
from storage.errors import UserError
from storage.files import read_json
from storage.manifest import SourceFile
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.forked import forked
from tests.tracks import write_track
from vocsep.preprocessing.config import StoreConfig
from vocsep.spectrograms.config import SpectrogramConfig
from vocsep.spectrograms.features import features
from vocsep.training.config import TrainConfig
from vocsep.training.fit import TrainResult, fit
from vocsep.training.group import leave_group
from vocsep.training.log import TrainingLog
from vocsep.training.run_folder import CHECKPOINTS, RUN_NAME
from vocsep.training.stopping import TrainingStopped
from vocsep.training.validation import Validation

Array = NDArray[Any]
Arrays = dict[str, Array]

SMALL = SpectrogramConfig(sample_rate=1000, n_fft=64, hop_length=16)
ALL_BINS = SMALL.model_copy(update={"dropped_bin": "none"})
SECONDS = 4
SAMPLES = SECONDS * SMALL.sample_rate


def song(seed: int, channels: int = 1) -> tuple[Array, Array]:
    """Mixture and vocals of 4 s, `(channels, samples)` float32: a wandering tone, and noise."""
    random = np.random.default_rng(seed)
    times = np.arange(SAMPLES) / SMALL.sample_rate
    pitch = 150 + 60 * np.sin(2 * np.pi * random.uniform(0.2, 0.6) * times)
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / SMALL.sample_rate)
    vocals = (tone * random.uniform(0.7, 1, (channels, 1))).astype(np.float32)
    return vocals + random.normal(0, 0.2, (channels, SAMPLES)).astype(np.float32), vocals


def small_store(
    path: Path,
    splits: Sequence[str],
    *,
    seed: int = 0,
    channels: int = 1,
    names: Sequence[str] | None = None,
    digests: Sequence[str] | None = None,
    spectrogram: SpectrogramConfig = SMALL,
    change: Callable[[str, Arrays], None] = lambda name, arrays: None,
) -> SpectrogramStore:
    """Songs of 4 s, one for each of `splits`, called Song 1, Song 2, ... unless `names` says otherwise.

    `digests` are those of the files that the songs are said to be made from. `change` may alter a song's arrays,
    by its name, before they are written.
    """
    config = StoreConfig(spectrogram=spectrogram, dtype="float32").model_dump(mode="json")
    store = SpectrogramStore.open_or_create(
        path, config=config, dataset={"kind": "folder", "root": "songs"}, tool="test"
    )
    for index, split in enumerate(splits):
        name = names[index] if names else f"Song {index + 1}"
        mixture, vocals = song(1000 * seed + index, channels)
        mixed, voice = (features(waveform, SMALL.sample_rate, spectrogram) for waveform in (mixture, vocals))
        arrays: Arrays = {"mixture": np.abs(mixed), "vocals": np.abs(voice), "accompaniment": np.abs(mixed - voice)}
        if split == "valid":
            arrays |= {"mixture_waveform": mixture, "vocals_waveform": vocals}
        change(name, arrays)
        source = SourceFile(
            path=f"/songs/{name}", bytes=1, modified_ns=1, sha256=digests[index] if digests else f"{index:064}"
        )
        identity = f"song-{index + 1}"
        track = write_track(path, identity, name=name, split=split, seconds=SECONDS, arrays=arrays, sources=(source,))
        store.add(track)
    store.save()
    return store


def quick(**changed: Any) -> TrainConfig:
    """A run of six steps of a tiny network of one channel, on the CPU, in float32, validated once."""
    settings = {
        "steps": 6,
        "batch_size": 4,
        "channels": 1,
        "width": 2,
        "validations": 1,
        "device": "cpu",
        "precision": "32",
        **changed,
    }
    return TrainConfig.model_validate(settings)


def without_pictures() -> Any:
    """Within it, runs show no pictures and sounds: they take most of the time of a tiny run."""
    return mock.patch.object(TrainingLog, "show")


def fit_plainly(
    config: TrainConfig,
    store: SpectrogramStore,
    folder: Path,
    resume: str,
    on_progress: Callable[[float, float], None] | None = None,
    registry: ModelRegistry | None = None,
) -> TrainResult | None:
    """`fit` with models and runs in `folder`, without pictures."""
    with without_pictures():
        return fit(config, store, registry or ModelRegistry(folder / "models"), folder / "runs", resume, on_progress)


def train(
    store: SpectrogramStore,
    folder: Path,
    registry: ModelRegistry | None = None,
    resume: str = "never",
    **changed: Any,
) -> TrainResult:
    """Train in this process; models and runs go into `folder`."""
    result = fit_plainly(quick(**changed), store, folder, resume, registry=registry)
    assert result is not None
    return result


def weights_of(result: TrainResult) -> Arrays:
    """Weights of the model that a run left in the registry."""
    return ModelRegistry(Path(result.model_path).parent).open(str(result.version)).load_weights()


def are_equal(first: Arrays, second: Arrays) -> bool:
    """Whether two sets of arrays have the same names, types and bits."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].tobytes() == second[name].tobytes() for name in first
    )


def checkpoint_of(run: Path | str) -> Checkpoint:
    """The newest checkpoint of a run, which must be intact."""
    checkpoint, problems = CheckpointFolder(Path(run) / CHECKPOINTS).newest()
    assert problems == []
    assert checkpoint is not None
    return checkpoint


def status_of(run: Path | str) -> str:
    """What `run.json` says of a run's fate."""
    return str(read_json(Path(run) / RUN_NAME)["status"])


class Child:
    """A function of this module in a separate process, with one thread; `messages` is what it says."""

    def __init__(self, folder: Path, target: Callable[..., None], *arguments: Any, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        self._process = forked(_child, self._output, environment, target, *arguments)
        self._process.start()

    @property
    def messages(self) -> str:
        """What was written to stdout and stderr so far."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def runs(self) -> list[Path]:
        """Folders of the runs, oldest first."""
        return sorted((self.folder / "runs").glob("*/"))

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.send(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.messages

    def wait_until(self, condition: Callable[[], Any], what: str, timeout: float = 600) -> None:
        """Wait until something holds; the process must live until then."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self._process.is_alive(), f"ended before {what}: {self.messages}"
            assert time.monotonic() < deadline, f"{what} did not come: {self.messages}"
            time.sleep(0.002)

    def wait(self, timeout: float = 600) -> int:
        """Exit code; minus the number of a signal that ended the process."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"still there after {timeout} s: {self.messages}")
        return self._process.exitcode


def fit_in_child(store: SpectrogramStore, folder: Path, resume: str = "auto", **changed: Any) -> Child:
    """Train as `train` does; exit code 2 after a `UserError`, 128 + number after a signal that stopped the run.

    `steps_per_row` says how often numbers are logged, `scores` what the validations give, `pictures` if they are shown,
    `default_steps` and `default_minutes` what a run without a budget has.
    """
    return Child(folder, _fit, store.path, folder, resume, changed)


def command_in_child(folder: Path, *arguments: str) -> Child:
    """Run `vocsep` in `folder`."""
    return Child(folder, _command, folder, arguments)


def fit_in_children(
    processes: int, store: SpectrogramStore, folder: Path, resume: str = "auto", *, srun: bool = False, **changed: Any
) -> list[Child]:
    """Train with several processes, as torchrun or SLURM's srun starts them; the first one is rank 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if srun:
        common = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": str(processes), "MASTER_PORT": str(port)}
        ranks = ("SLURM_PROCID", "SLURM_LOCALID")
    else:
        common = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "TORCHELASTIC_RUN_ID": "test",
        }
        ranks = ("RANK", "LOCAL_RANK")
    return [
        Child(folder, _fit, store.path, folder, resume, changed, **common, **dict.fromkeys(ranks, str(rank)))
        for rank in range(processes)
    ]


def _child(output: Path, environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    gc.freeze()  # what was imported is no garbage, and need not be looked through
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.environ |= environment
    # As in a terminal: what a shell starts in the background ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    target(*arguments)


def scripted(scores: Sequence[float | tuple[float, ...]]) -> Callable[..., Validation]:
    """A `validate` that gives one score after the other, or the scores of songs; the first are the floor's."""
    following = iter(scores)

    def validate(*_: Any, **__: Any) -> Validation:
        songs = np.atleast_1d(next(following)).tolist()
        return Validation(float(np.median(songs)), {str(number): score for number, score in enumerate(songs)})

    return validate


def _fit(store: Path, folder: Path, resume: str, changed: dict[str, Any]) -> None:
    if "steps_per_row" in changed:
        mock.patch("vocsep.training.loop.STEPS_PER_ROW", changed.pop("steps_per_row")).start()
    for name in {"default_steps", "default_minutes"} & changed.keys():
        mock.patch(f"vocsep.training.budget.{name.upper()}", changed.pop(name)).start()
    if "scores" in changed:
        mock.patch("vocsep.training.loop.validate", scripted(changed.pop("scores"))).start()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    pictures = changed.pop("pictures", False)
    try:
        with nullcontext() if pictures else without_pictures():
            registry = ModelRegistry(folder / "models")
            with mock.patch("vocsep.training.fit.leave_group", side_effect=_leave_group_telling_its_threads):
                fit(quick(**changed), SpectrogramStore.open(store), registry, folder / "runs", resume)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)


def _leave_group_telling_its_threads() -> None:
    before = _gloo_threads()
    leave_group()
    print(f"gloo threads: {before}, then {_gloo_threads()}")


def _gloo_threads() -> int:
    """Of this process; Linux names them."""
    return sum("gloo" in name.read_text() for name in Path("/proc/self/task").glob("*/comm"))


def _command(folder: Path, arguments: tuple[str, ...]) -> None:
    os.chdir(folder)
    sys.argv = ["vocsep", *arguments]
    vocsep.cli.main.main()
