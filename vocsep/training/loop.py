"""A training run: its steps, from the first to the last, and what happens between them."""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from math import isfinite
from pathlib import Path
from typing import NoReturn, cast

import torch
from torch import nn

from storage.checkpoints import Checkpoint, CheckpointFolder
from storage.errors import UserError, one_line
from storage.files import write_json
from storage.store import SpectrogramStore
from vocsep.models.mask_module import MaskModule
from vocsep.models.objective import as_distance
from vocsep.patches.batch import Batch
from vocsep.progress import Progress
from vocsep.spectrograms.stft import compile_istft
from vocsep.training.batches import StepBatches
from vocsep.training.budget import SETTLED_SHARE, Budget
from vocsep.training.config import TrainConfig
from vocsep.training.ema import AveragedNetwork
from vocsep.training.group import Group
from vocsep.training.log import STEPS_PER_ROW, TrainingBar, TrainingLog
from vocsep.training.loss import batch_loss
from vocsep.training.optimizer import new_optimizer
from vocsep.training.parts import BatchParts
from vocsep.training.run_folder import CHECKPOINTS, FAILED, RUN_NAME, RunFolder
from vocsep.training.schedule import Schedule
from vocsep.training.slowness import slowness
from vocsep.training.state import Course, from_arrays, to_arrays, weights_of
from vocsep.training.stopping import TrainingStopped, received_signals
from vocsep.training.validation import validate

# With a budget in minutes, a validation is left out while validations take a larger share of the time than this.
LARGEST_VALIDATION_SHARE = 0.1
NAMED_PATCHES = 8


def run_training(
    group: Group,
    network: MaskModule,
    store: SpectrogramStore,
    config: TrainConfig,
    batches: StepBatches,
    run: RunFolder | None,
    progress: Progress | None = None,
) -> Course:
    """Train `network` until the budget is used up, resuming from the run's checkpoint if it has one.

    Parameters
    ----------
    run
        Where everything is written; None in all but the first of several processes.
    progress
        Called after every step with the used share of the budget, and 1.

    Raises
    ------
    UserError
        If loss or gradients are not finite; it names step, songs and frames, and what was saved.
    TrainingStopped
        If a signal ended the run, after it was saved.
    """
    budget, schedule, course = Budget.of(config, store), Schedule(config.schedule, config.warmup), Course()
    network.to(group.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedNetwork(network, config.ema)
    optimizer = new_optimizer(config, network, group.device)
    if (checkpoint := _shared_checkpoint(group, run)) is not None:
        try:
            best = from_arrays(checkpoint.arrays, network, average, optimizer)
            course.restore(checkpoint.step, checkpoint.state, best, budget, config.validations)
            schedule.restore(checkpoint.state["schedule"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:  # of another version, or made by others
            where = run.path if run is not None else "the run"
            raise one_line(f"{where}: its checkpoint", "resumed; start over with --resume never", error) from None

    threads = torch.get_num_threads()
    # A GPU takes one song after the other.
    songs_at_a_time = threads if group.device.type == "cpu" else 1
    with ExitStack() as stack:
        # The parts of a batch have a thread each; more within would only wait for each other.
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
        share = config.batch_size // group.size
        loss_of = partial(batch_loss, config.objective)
        parts = stack.enter_context(closing(BatchParts(group, network, loss_of, share, threads)))
        feed = stack.enter_context(closing(batches.from_step(course.step)))
        if run is not None:
            compile_istft()  # else the first validation would: too large a share of the time for others to follow
            course.floor_sdr_db = validate(store, None, threads=songs_at_a_time).sdr_db
            run.write("running", settings=config.model_dump(mode="json"))
            rows = stack.enter_context(closing(TrainingLog(run.path, course.step)))
            bar = stack.enter_context(closing(TrainingBar()))
        received = stack.enter_context(received_signals())
        budget.start(course.seconds)
        first_step, first_second, saved_at = course.step, course.seconds, course.seconds
        told = (course.step, time.perf_counter(), 0.0)  # step, time and seconds waited of the last row
        is_rated = not budget.is_default  # with any other budget, how fast it is is not for us to judge

        def save(folder: CheckpointFolder) -> None:
            state = course.state() | {"schedule": schedule.state()}
            folder.save(course.step, to_arrays(network, average, optimizer, course.best_weights), state)

        def score() -> None:
            """Validate in the first process, and tell the others."""
            nonlocal told
            started, scores, estimates = time.monotonic(), (0.0, 0.0), {}
            if run is not None:
                average.network.eval()
                scored = cast(MaskModule, average.network)
                result = validate(store, scored, keep_songs=config.shown_songs, threads=songs_at_a_time)
                scores, estimates = (result.sdr_db, result.mean_sdr_db), result.estimates
            sdr_db, mean_sdr_db = group.from_first(scores)
            schedule.on_validation(mean_sdr_db)
            is_best = course.validated(sdr_db, mean_sdr_db)
            if run is not None:
                if is_best:
                    course.best_weights = weights_of(average.network)
                rows.write(course.step, budget.seconds_used, {"valid/sdr_db": sdr_db})
                rows.show(course.step, store, estimates)
                scored_as = f"validation SDR {sdr_db:.2f} dB (mean {mean_sdr_db:.2f})"
                bar.say(f"  step {course.step}: {scored_as}, loss {course.loss:.4f}")
            course.validation_seconds += time.monotonic() - started
            course.seconds = budget.seconds_used
            told = (course.step, time.perf_counter(), told[2])

        # A run that was stopped or killed in the step of a validation makes it first.
        if checkpoint is not None and _is_validation_due(config, course, budget, course.validation_share):
            score()

        while course.used < 1.0 and not _ends_early(config, course):
            rate_share = schedule.factor(budget.scheduled(course.step + 1, course.used_seconds))
            for parameters in optimizer.param_groups:
                parameters["lr"] = config.learning_rate * rate_share

            batch = group.on_device(next(feed))
            # Forward, loss and backward. Random numbers come from nothing but seed and step: a resumed run takes the
            # same steps.
            loss = parts.backward(batch, _step_seed(config, course.step))
            norm = float(nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip or float("inf")))
            if not (isfinite(loss) and isfinite(norm)):
                _fail(group, run, save, course.step, loss, norm, batch, batches.places(course.step))
            optimizer.step()

            # All processes go by the same numbers; losses are means over the shares of the batch.
            course.step += 1
            number = received[0] if received else 0
            seconds = budget.seconds_used
            own = (budget.used_seconds(seconds), number, loss, seconds, course.validation_share)
            every = group.gathered(own)
            course.used_seconds, stop_signal = float(every[:, 0].max()), int(every[:, 1].max())
            course.used = budget.used(course.step, course.used_seconds)
            mean_loss = as_distance(config.objective, float(every[:, 2].mean()))
            course.seconds = float(every[0, 3])
            course.loss = mean_loss if course.step == 1 else 0.98 * course.loss + 0.02 * mean_loss

            if run is not None:
                average.update(course.step)
                if course.step % STEPS_PER_ROW == 0:
                    now, waited = time.perf_counter(), batches.seconds_waited
                    passed = max(1e-9, now - told[1])
                    values = {
                        "train/loss": mean_loss,
                        "train/learning_rate": config.learning_rate * rate_share,
                        "train/gradient_norm": norm,
                        "train/patches_per_second": (course.step - told[0]) * config.batch_size / passed,
                        "train/data_wait_share": min(1.0, (waited - told[2]) / passed),
                    }
                    rows.write(course.step, course.seconds, values)
                    told = (course.step, now, waited)

            # One that is due when the run is stopped comes first when it resumes.
            due = not stop_signal and _is_validation_due(config, course, budget, float(every[0, 4]))
            if due:
                score()
            ended = course.used >= 1.0 or _ends_early(config, course)

            if run is not None:
                if stop_signal or ended or due or course.seconds - saved_at >= config.checkpoint_seconds:
                    save(run.checkpoints)
                    saved_at = course.seconds
                rate = (course.step - first_step) / max(1e-9, course.seconds - first_second)
                if not is_rated and budget.used_seconds(course.seconds - first_second) >= SETTLED_SHARE:
                    is_rated = True
                    line = slowness(budget, course.step, course.seconds, rate, config.batch_size, group.precision)
                    if line is not None:
                        bar.warn(line)
                best_mean = course.best_mean_sdr_db if course.history else None
                bar.update(course.used, course.step, rate, course.loss, best_mean)
                if progress is not None:
                    progress(course.used, 1.0)
            if stop_signal:
                if run is not None:
                    run.write("stopped")
                raise TrainingStopped(str(run.path) if run else "", course.step, stop_signal)
    return course


def _step_seed(config: TrainConfig, step: int) -> int:
    return ((config.seed << 32) + step) * config.batch_size


def _shared_checkpoint(group: Group, run: RunFolder | None) -> Checkpoint | None:
    """The checkpoint that the first process found, in all processes."""
    held = group.from_first((str(run.path), run.checkpoint.step) if run and run.checkpoint else None)
    if run is not None or held is None:
        return run.checkpoint if run else None
    return CheckpointFolder(Path(held[0]) / CHECKPOINTS).load(held[1])


def _is_validation_due(config: TrainConfig, course: Course, budget: Budget, validation_share: float) -> bool:
    """Validations come at even shares of the budget; a budget in minutes leaves out those that cost too much."""
    number = int(course.used * config.validations)
    if number <= course.validations:
        return False
    course.validations = number
    timed = budget.seconds is not None and course.used < 1.0 and bool(course.history)
    return not (timed and validation_share > LARGEST_VALIDATION_SHARE)


def _ends_early(config: TrainConfig, course: Course) -> bool:
    return config.patience is not None and course.without_better >= config.patience


def _fail(
    group: Group,
    run: RunFolder | None,
    save: Callable[[CheckpointFolder], None],
    step: int,
    loss: float,
    norm: float,
    batch: Batch,
    places: list[str],
) -> NoReturn:
    """Save the state before a step that would spoil the weights as a separate run, and name what was in the step."""
    bad = [
        place
        for index, place in enumerate(places)
        if not all(torch.isfinite(source[index]).all() for source in batch if source is not None)
    ]
    # All processes come here together, since they share one gradient norm.
    bad = group.gathered_names(bad)
    saved = "the first process's run"
    if run is not None:
        folder = run.path / FAILED
        save(CheckpointFolder(folder / CHECKPOINTS))
        write_json(folder / RUN_NAME, run.description | {"status": "failed", "patches": bad or places})
        run.write("failed")
        saved = str(folder)
    if bad:
        cause = f"not finite in the store: {', '.join(bad)}; look at these songs, and run `vocsep store verify`"
    else:
        named = ", ".join(places[:NAMED_PATCHES]) + (" ..." if len(places) > NAMED_PATCHES else "")
        cause = f"the patches were sound ({named}); lower the learning rate or set gradient_clip"
    raise UserError(
        f"step {step + 1}: loss is {loss:g}, gradient norm {norm:g}; {cause}. The last good checkpoint stays; this "
        f"step can be repeated with --resume {saved}"
    )
