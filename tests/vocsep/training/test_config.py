from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.vocsep.training.training_runs import small_store
from vocsep.training.budget import Budget
from vocsep.training.config import FREE_ON_RESUME, TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"epochs": 0},
        {"epochs": inf},
        {"max_minutes": -1},
        {"batch_size": 0},
        {"optimizer": "sgd"},
        {"learning_rate": 0},
        {"learning_rate": nan},
        {"weight_decay": -0.1},
        {"schedule": "linear"},
        {"warmup": 1},
        {"gradient_clip": 0},
        {"ema": 1},
        {"objective": {"loss": "l3"}},
        {"augmentation": {"remix": 1.5}},
        {"augmentation": {"tempo_factor": 0.5}},
        {"augmentation": {"reverb": 1}},
        {"channels": 3},
        {"objective": {"input": "cube"}},
        {"objective": {"bias": "mean"}},
        {"width": 0},
        {"dropout": 1},
        {"validations": 0},
        {"patience": 0},
        {"checkpoint_seconds": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"device": "tpu"},
        {"devices": 0},
        {"precision": "16"},
        {"data": "disk"},
        {"momentum": 0.9},
    ],
    ids=str,
)
def test_wrong_or_unknown_setting_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        TrainConfig.model_validate(wrong)
    ((name, value),) = wrong.items()
    expected = (name, *value) if isinstance(value, dict) else (name,)
    assert {part["loc"][: len(expected)] for part in error.value.errors()} == {expected}


def test_devices_that_cannot_share_a_batch_are_refused_before_they_start() -> None:
    with pytest.raises(ValidationError, match="devices 99 cannot share a batch_size of 8 evenly"):
        TrainConfig(devices=99)
    assert TrainConfig(devices=8).devices == 8


@pytest.mark.parametrize(
    "targets", [(), ("accompaniment",), ("accompaniment", "vocals"), ("vocals", "vocals"), ("vocals", "drums")]
)
def test_targets_are_vocals_or_vocals_and_accompaniment(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="targets"):
        TrainConfig.model_validate({"targets": targets})
    assert TrainConfig.model_validate({"targets": ["vocals", "accompaniment"]}).targets == ("vocals", "accompaniment")


def test_every_setting_but_budget_patience_and_place_decides_what_a_step_does() -> None:
    free = {"steps", "epochs", "max_minutes", "validations", "shown_songs", "patience"} | {
        "checkpoint_seconds",
        "device",
        "data",
    }
    assert free <= set(FREE_ON_RESUME)
    deciding = TrainConfig().identity()
    assert not free & deciding.keys()
    assert deciding.keys() == TrainConfig.model_fields.keys() - set(FREE_ON_RESUME)
    needed = {"batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "warmup", "gradient_clip", "ema"}
    needed |= {"objective", "targets", "augmentation", "channels", "width", "dropout", "fine_tune", "seed"}
    needed |= {"precision"}
    assert needed <= deciding.keys()


# Budget


def test_budget_by_steps_is_the_share_of_the_steps_and_never_more_than_all() -> None:
    budget = Budget(8, None)
    assert [budget.used_steps(step) for step in (0, 2, 8, 9)] == [0, 0.25, 1, 1]
    assert budget.used_seconds(1e9) == 0


def test_budget_by_time_is_the_share_of_the_seconds_and_never_more_than_all() -> None:
    budget = Budget(None, 1e9)
    assert budget.used_seconds(budget.seconds_used) < 1e-3
    assert budget.used_steps(1_000_000) == 0
    budget.start(5e8)
    assert budget.used_seconds(budget.seconds_used) == pytest.approx(0.5, abs=1e-3)
    budget.start(2e9)
    assert budget.used_seconds(budget.seconds_used) == 1


def test_budget_of_both_follows_the_one_that_is_used_up_first() -> None:
    budget = Budget(100, 1000)
    assert budget.used(60, budget.used_seconds(300)) == pytest.approx(0.6)
    assert budget.used(60, budget.used_seconds(900)) == pytest.approx(0.9)


def test_schedule_of_both_goes_by_the_steps_where_they_end_first_also_after_a_slow_start() -> None:
    budget = Budget(450, 900)

    def positions(seconds_of_step: Callable[[int], float]) -> list[float]:
        seconds, found = 0.0, []
        for step in range(1, 451):
            found.append(budget.scheduled(step, budget.used_seconds(seconds)))
            seconds += seconds_of_step(step)
        return found

    by_steps = positions(lambda step: 0.0)
    assert by_steps == pytest.approx(np.arange(1, 451) / 450)
    assert positions(lambda step: 0.5) == by_steps
    assert positions(lambda step: 1.9) == by_steps
    assert positions(lambda step: 20.0 if step == 1 else 0.5) == by_steps
    # 900 s end first: with the 225th step of 4 s.
    slow = positions(lambda step: 4.0)
    assert slow[224] == pytest.approx(224 / 225)
    assert slow == sorted(slow)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "1600 steps or 15 minutes"),
        ({"max_minutes": 0.5}, "0.5 minutes"),
        ({"steps": 500}, "500 steps"),
        ({"steps": 500, "max_minutes": 90}, "500 steps or 90 minutes"),
    ],
)
def test_budget_says_what_it_is(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    store = small_store(tmp_path / "store.zarr", ("train",))
    assert str(Budget.of(TrainConfig.model_validate(settings), store)) == text


@pytest.mark.parametrize(
    ("song_channels", "channels", "epochs", "batch_size", "expected"),
    [
        # Two mono songs of 251 frames: 502 frames hold 3 patches of 128. 4 epochs in batches of 5: 12 / 5.
        (1, 1, 4, 5, 3),
        # In stereo twice as many for a network of one channel, as many for one of two.
        (2, 1, 4, 5, 6),
        (2, 2, 4, 5, 3),
        (1, 1, 0.01, 5, 1),
    ],
)
def test_epoch_is_as_many_patches_as_lie_side_by_side_in_the_training_songs(
    tmp_path: Path, song_channels: int, channels: int, epochs: float, batch_size: int, expected: int
) -> None:
    store = small_store(tmp_path / "store.zarr", ("train", "train", "valid"), channels=song_channels)
    assert sum(track.frames for track in store.tracks("train")) == 2 * 251
    settings = {"epochs": epochs, "batch_size": batch_size, "channels": channels}
    assert Budget.of(TrainConfig.model_validate(settings), store).steps == expected
    assert Budget.of(TrainConfig.model_validate({**settings, "steps": 2}), store).steps == min(2, expected)
