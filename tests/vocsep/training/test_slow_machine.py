"""A training without a budget on a machine that is slow: here by being stopped and continued again and again."""

import csv
import re
import signal
import time
from pathlib import Path

import pytest

from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.training.training_runs import (
    Child,
    are_equal,
    fit_in_child,
    small_store,
    status_of,
    train,
    weights_of,
)
from vocsep.training.budget import Budget
from vocsep.training.slowness import slowness


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return small_store(tmp_path_factory.mktemp("slow") / "store.zarr", ("train", "train", "valid"))


def rows(child: Child) -> list[dict[str, str]]:
    (run,) = child.runs
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def has_begun(child: Child) -> bool:
    return bool(child.runs) and (child.runs[0] / "metrics.csv").exists() and bool(rows(child))


def held_up(child: Child, seconds: float) -> None:
    child.send(signal.SIGSTOP)
    time.sleep(seconds)
    child.send(signal.SIGCONT)


def test_training_without_a_budget_gives_the_same_model_however_often_it_is_held_up(
    store: SpectrogramStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocsep.training.budget.DEFAULT_STEPS", 60)
    undisturbed = train(store, tmp_path / "undisturbed", steps=None)
    assert undisturbed.steps == 60
    child = fit_in_child(store, tmp_path / "held up", steps=None, default_steps=60, steps_per_row=1)
    child.wait_until(lambda: has_begun(child), "a step")
    for _ in range(8):
        time.sleep(0.05)
        if child.is_alive:
            held_up(child, 0.3)
    assert child.wait() == 0, child.messages
    weights = ModelRegistry(child.folder / "models").open("1").load_weights()
    assert are_equal(weights, weights_of(undisturbed))


def test_slow_machine_says_so_once_and_ends_in_time_with_the_schedule_at_its_end(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    # The 15 minutes are 9 s here, and the minute after which it is known is 0.6 s.
    child = fit_in_child(store, tmp_path, steps=None, default_minutes=0.15, default_steps=10**6, steps_per_row=1)
    child.wait_until(lambda: has_begun(child), "a step")
    held_up(child, 6)
    assert child.wait() == 0, child.messages
    (line,) = [line for line in child.messages.splitlines() if "slow: " in line]
    assert re.search(r"where two idle cores do (10|7) with the default network in (bfloat16|float32); load ", line)
    assert line.endswith("of 1000000")
    assert status_of(child.runs[0]) == "finished"
    rates = [float(row["train/learning_rate"]) for row in rows(child) if row["train/learning_rate"]]
    # From then on it falls, to the end; a machine that is slow indeed may not get that far.
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert len(rates) < 20 or rates[-1] < 0.5 * max(rates)
    assert rows(child)[-1]["valid/sdr_db"]


def test_line_of_a_slow_machine_says_what_is_seen_expected_and_to_come() -> None:
    budget = Budget(450, 900, is_default=True)
    assert slowness(budget, 150, 60, 2.5, 16, "bfloat16") is None
    assert slowness(budget, 78, 60, 1.3, 16, "bfloat16") is None
    # Four times as many patches per step: a fourth of the steps is no slower.
    assert slowness(budget, 20, 60, 0.33, 64, "bfloat16") is None
    late = slowness(budget, 36, 60, 0.6, 16, "bfloat16")
    assert late is not None
    # 414 more steps at 0.6 per second: 690 s.
    assert late.startswith("slow: 0.6 steps/s, where two idle cores do 2.5 with the default network in bfloat16; load ")
    assert late.endswith("; 450 steps take about 12 minutes")
    # Numbers of twice the size take longer, on an idle machine, too.
    assert slowness(budget, 60, 60, 1.0, 16, "float32") is None
    assert slowness(budget, 60, 60, 1.0, 16, "bfloat16") is not None
    never = slowness(budget, 6, 60, 0.1, 16, "float32")
    assert never is not None
    assert never.endswith("; training ends after 15 minutes, at about step 90 of 450")
