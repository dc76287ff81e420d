"""The course of a training run: budget, learning rate, averaged weights, validation, checkpoints, guards, signals."""

import signal
import threading
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from storage.checkpoints import Checkpoint, CheckpointFolder
from storage.errors import UserError
from storage.files import write_json
from storage.registry import Weights
from storage.store import SpectrogramStore
from vocsep.models.unet import UNet
from vocsep.patches.maker import Batch
from vocsep.training.budget import Budget
from vocsep.training.config import TrainConfig
from vocsep.training.ema import AveragedNetwork
from vocsep.training.log import STEPS_PER_ROW, TrainingBar, TrainingLog
from vocsep.training.run_folder import CHECKPOINTS, FAILED, RUN_NAME, RunFolder
from vocsep.training.schedule import Schedule
from vocsep.training.state import from_arrays, to_arrays, weights_of
from vocsep.training.stopping import TrainingStopped
from vocsep.training.validation import validate

if TYPE_CHECKING:
    from vocsep.training.batches import StepBatches
    from vocsep.training.module import TrainingModule

# With a budget in minutes, a validation is left out while validations take a larger share of the time than this.
LARGEST_VALIDATION_SHARE = 0.1
NAMED_PATCHES = 8

ProgressHook = Callable[[float], None]


class TrainingRun(Callback):
    """What happens around the steps.

    In all but the first of several processes (`run` is None) it only keeps the budget and the learning rate.

    Attributes
    ----------
    step
        Steps done, those before a resume included.
    best_sdr_db, best_weights
        Of the best validation so far.
    history
        One entry per validation.
    """

    def __init__(
        self,
        run: RunFolder | None,
        module: "TrainingModule",
        store: SpectrogramStore,
        config: TrainConfig,
        budget: Budget,
        on_progress: ProgressHook | None,
    ) -> None:
        self.run = run
        self.module = module
        self.store = store
        self.config = config
        self.budget = budget
        self.on_progress = on_progress
        self.schedule = Schedule(config.schedule, config.warmup)
        self.checkpoint: Checkpoint | None = run.checkpoint if run else None
        self.step = 0
        self.used = 0.0
        self.best_sdr_db = float("-inf")
        self.best_weights: Weights = {}
        self.history: list[dict[str, float]] = []
        self.floor_sdr_db = float("nan")
        self.validation_seconds = 0.0
        self._validations = 0
        self._without_better = 0
        self._loss = 0.0
        self._saved_at = 0.0
        self._received = 0  # the signal that came to this process
        self._stop_signal = 0  # the one that all processes know of
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # Taken now: Lightning puts handlers of its own over them for as long as it runs.
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self._first_step, self._first_second = 0, 0.0
        self._told = (0, 0.0, 0.0)  # step, time and seconds waited of the last row
        self._average: AveragedNetwork | None = None
        self._bar: TrainingBar | None = None
        self._log: TrainingLog | None = None
        self._batches: StepBatches | None = None
        self._patches: Batch | None = None
        module.guard = self.check_finite

    @property
    def validation_share(self) -> float:
        """Share of the time that validations took."""
        return self.validation_seconds / max(1e-9, self.budget.seconds_used)

    def follow(self, batches: "StepBatches") -> None:
        """The batches that the run is fed with."""
        self._batches = batches

    # Lightning's hooks, in the order in which they come.

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Agree with the other processes on where to begin."""
        held = (str(self.run.path), self.checkpoint.step) if self.run and self.checkpoint else None
        shared = trainer.strategy.broadcast(held)
        if shared is not None and self.checkpoint is None:
            folder, step = shared
            self.checkpoint = CheckpointFolder(Path(folder) / CHECKPOINTS).load(step)
        if self.checkpoint is not None:
            self.step = self.checkpoint.step
        assert self._batches is not None
        self._batches.first_step = self.step

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the checkpoint's state, open log and bar, and start the clock."""
        self._average = AveragedNetwork(self.module.network, self.config.ema)
        seconds = 0.0
        if self.checkpoint is not None:
            seconds = self._restore(self.checkpoint, trainer.optimizers[0])
        self._saved_at = seconds
        self._first_step, self._first_second = self.step, seconds
        self._told = (self.step, time.perf_counter(), 0.0)
        if self.run is not None:
            self.floor_sdr_db = validate(self.store, None).sdr_db
            self.run.write("running", settings=self.config.model_dump(mode="json"))
            self._log = TrainingLog(self.run.path, self.step)
            self._bar = TrainingBar()
        self.budget.start(seconds)
        if self.checkpoint is not None and self.run is not None and self._is_validation_due():
            self._validate()
        for number in self._handlers:
            signal.signal(number, self._on_signal)
        # One that was killed between its last step and the registry has nothing left to do.
        trainer.should_stop = self.used >= 1.0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set what a step depends on: learning rate, and random numbers from nothing but seed and step."""
        self._patches = batch
        torch.manual_seed((self.config.seed << 32) + self.step)
        share = self.schedule.factor(max(self.budget.used_steps(self.step + 1), self.used))
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.config.learning_rate * share

    def check_finite(self, loss: float, gradient_norm: float) -> None:
        """Stop before a step that would spoil the weights.

        Raises
        ------
        UserError
            If loss or gradients are not finite; it names step, songs and frames, and what was saved.
        """
        if isfinite(loss) and isfinite(gradient_norm):
            return
        assert self._patches is not None
        assert self._batches is not None
        places = self._batches.places(self.step)
        bad = [
            place
            for index, place in enumerate(places)
            if not all(torch.isfinite(source[index]).all() for source in self._patches if source is not None)
        ]
        bad = self._of_all(bad)
        saved = self._save_failed(bad or places)
        if bad:
            cause = f"not finite in the store: {', '.join(bad)}; look at these songs, and run `vocsep store verify`"
        else:
            named = ", ".join(places[:NAMED_PATCHES]) + (" ..." if len(places) > NAMED_PATCHES else "")
            cause = f"the patches were sound ({named}); lower the learning rate or set gradient_clip"
        raise UserError(
            f"step {self.step + 1}: loss is {loss:g}, gradient norm {gradient_norm:g}; {cause}. The last good "
            f"checkpoint stays; this step can be repeated with --resume {saved}"
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, log, validate, save, and end the run when it is time."""
        self.step += 1
        self.used, self._stop_signal, loss = self._agree(float(outputs["loss"]))
        due = False
        if self.run is not None:
            assert self._average is not None
            self._loss = loss if self.step == 1 else 0.98 * self._loss + 0.02 * loss
            self._average.update(self.step)
            self._log_step(trainer, loss)
            # One that is due when the run is stopped comes first when it goes on.
            due = not self._stop_signal and self._is_validation_due()
            if due:
                self._validate()
        ended = self._follow_validation() or self.used >= 1.0
        if self.run is not None:
            seconds = self.budget.seconds_used
            if self._stop_signal or ended or due or seconds - self._saved_at >= self.config.checkpoint_seconds:
                self._save(self.run.checkpoints, trainer.optimizers[0])
                self._saved_at = seconds
            self._show()
        trainer.should_stop = bool(ended or self._stop_signal)

    def finish(self) -> None:
        """After the last step.

        Raises
        ------
        TrainingStopped
            If a signal ended the run.
        """
        if self._stop_signal:
            where = str(self.run.path) if self.run else ""
            if self.run is not None:
                self.run.write("stopped")
            raise TrainingStopped(where, self.step, self._stop_signal)

    def summary(self) -> dict[str, Any]:
        """What a model file says of the run."""
        return {
            "steps_done": self.step,
            "seconds": round(self.budget.seconds_used, 1),
            "validation_share": round(self.validation_share, 4),
            "device": self.module.device.type,
        }

    def close(self) -> None:
        """Give back what the run holds."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._bar is not None:
            self._bar.close()
        if self._log is not None:
            self._log.close()
        if self.run is not None:
            self.run.close()

    # What the hooks do.

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Remember that the run is to end after this step; a second signal does what it would without a run."""
        self._received = number
        signal.signal(number, self._handlers[number])

    def _agree(self, loss: float) -> tuple[float, int, float]:
        """Used share of the budget, signal, and mean loss: the same in all processes."""
        used, number = self.budget.used(self.step), self._received
        if not torch.distributed.is_initialized():
            return used, number, loss
        own = torch.tensor([used, number, loss], dtype=torch.float64, device=self.module.device)
        every = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(every, own)
        highest, mean = torch.stack(every).amax(dim=0).tolist(), torch.stack(every).mean(dim=0).tolist()
        return highest[0], int(highest[1]), mean[2]

    def _follow_validation(self) -> bool:
        """Whether the run ends early; the first process validates, and the others learn here what follows from it."""
        early = self._stops_early()
        if not torch.distributed.is_initialized():
            return early
        first = torch.tensor([early, self.schedule.reduction], dtype=torch.float64, device=self.module.device)
        torch.distributed.broadcast(first, src=0)
        self.schedule.reduction = float(first[1])
        return bool(first[0])

    @staticmethod
    def _of_all(places: list[str]) -> list[str]:
        """The places that any process found; all come here together, since they share one gradient norm."""
        if not torch.distributed.is_initialized():
            return places
        every: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(every, places)
        return [place for one in every for place in one]

    def _stops_early(self) -> bool:
        return self.config.patience is not None and self._without_better >= self.config.patience

    def _log_step(self, trainer: lightning.Trainer, loss: float) -> None:
        assert self._log is not None
        assert self._batches is not None
        if self.step % STEPS_PER_ROW == 0:
            now, waited = time.perf_counter(), self._batches.seconds_waited
            steps, seconds = self.step - self._told[0], max(1e-9, now - self._told[1])
            self._log.write(
                self.step,
                self.budget.seconds_used,
                {
                    "train/loss": loss,
                    "train/learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                    "train/gradient_norm": self.module.gradient_norm,
                    "train/patches_per_second": steps * self.config.batch_size / seconds,
                    "train/data_wait_share": min(1.0, (waited - self._told[2]) / seconds),
                },
            )
            self._told = (self.step, now, waited)

    def _show(self) -> None:
        assert self._bar is not None
        seconds = max(1e-9, self.budget.seconds_used - self._first_second)
        best = self.best_sdr_db if self.history else None
        self._bar.update(self.used, self.step, (self.step - self._first_step) / seconds, self._loss, best)
        if self.on_progress is not None:
            self.on_progress(self.used)

    def _is_validation_due(self) -> bool:
        """Validations come at even shares of the budget; a budget in minutes leaves out those that cost too much."""
        number = int(self.used * self.config.validations)
        if number <= self._validations:
            return False
        self._validations = number
        timed = self.budget.seconds is not None
        return not (timed and self.used < 1.0 and self.history and self.validation_share > LARGEST_VALIDATION_SHARE)

    def _validate(self) -> None:
        assert self._log is not None
        assert self._bar is not None
        assert self._average is not None
        network = self._average.network
        started = time.monotonic()
        was_training = network.training
        network.eval()
        result = validate(self.store, cast(UNet, network), keep_songs=self.config.shown_songs)
        network.train(was_training)
        self._without_better = 0 if result.sdr_db > self.best_sdr_db else self._without_better + 1
        if result.sdr_db > self.best_sdr_db:
            self.best_sdr_db = result.sdr_db
            self.best_weights = weights_of(network)
        self.schedule.on_validation(result.sdr_db)
        self.history.append({"step": self.step, "valid_sdr_db": result.sdr_db, "train_loss": self._loss})
        self._log.write(self.step, self.budget.seconds_used, {"valid/sdr_db": result.sdr_db})
        self._log.show(self.step, self.store, result.estimates)
        self._bar.say(f"  step {self.step}: validation SDR {result.sdr_db:.2f} dB, loss {self._loss:.4f}")
        self.validation_seconds += time.monotonic() - started
        self._told = (self.step, time.perf_counter(), self._told[2])

    def _state(self) -> dict[str, Any]:
        return {
            "seconds": self.budget.seconds_used,
            "used": self.used,
            "best_sdr_db": self.best_sdr_db if self.history else None,
            "history": self.history,
            "validations": self._validations,
            "validation_seconds": self.validation_seconds,
            "without_better": self._without_better,
            "loss": self._loss,
            "schedule": self.schedule.state(),
        }

    def _save(self, folder: CheckpointFolder, optimizer: torch.optim.Optimizer) -> None:
        assert self._average is not None
        arrays = to_arrays(self.module.network, self._average, optimizer, self.best_weights)
        folder.save(self.step, arrays, self._state())

    def _restore(self, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> float:
        """Bring everything to where the checkpoint was; returns the seconds that were used until then."""
        assert self._average is not None
        self.best_weights = from_arrays(checkpoint.arrays, self.module.network, self._average, optimizer)
        state = checkpoint.state
        self.history = list(state["history"])
        self.best_sdr_db = state["best_sdr_db"] if self.history else float("-inf")
        self.validation_seconds = state["validation_seconds"]
        self._without_better = state["without_better"]
        self._loss = state["loss"]
        self.schedule.restore(state["schedule"])
        # With a larger budget than before, what was used is a smaller share of it.
        self.used = max(self.budget.used_steps(checkpoint.step), self.budget.used_seconds(state["seconds"]))
        self._validations = min(state["validations"], int(self.used * self.config.validations))
        return float(state["seconds"])

    def _save_failed(self, places: list[str]) -> str:
        """Save the state before a failed step as a run of its own, with which the step can be repeated."""
        if self.run is None:
            return "the first process's run"
        folder = self.run.path / FAILED
        self._save(CheckpointFolder(folder / CHECKPOINTS), self.module.trainer.optimizers[0])
        write_json(folder / RUN_NAME, self.run.description | {"status": "failed", "patches": places})
        self.run.write("failed")
        return str(folder)
