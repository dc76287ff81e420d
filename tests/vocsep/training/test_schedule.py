import json
from math import cos, pi
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocsep.training.schedule import Schedule


@given(used=st.floats(0, 1), warmup=st.floats(0.001, 0.9))
def test_cosine_rises_linearly_and_falls_along_half_a_cosine(used: float, warmup: float) -> None:
    factor = Schedule("cosine", warmup).factor(used)
    assert -1e-12 <= factor <= 1 + 1e-12
    if used < warmup:
        assert factor == pytest.approx(used / warmup)
    else:
        assert factor == pytest.approx(0.5 + 0.5 * cos(pi * (used - warmup) / (1 - warmup)))


def test_cosine_begins_at_0_is_whole_after_warmup_half_midway_down_and_0_at_the_end() -> None:
    schedule = Schedule("cosine", 0.2)
    assert schedule.factor(0.0) == 0
    assert schedule.factor(0.1) == pytest.approx(0.5)
    assert schedule.factor(0.2) == pytest.approx(1)
    assert schedule.factor(0.6) == pytest.approx(0.5)
    assert schedule.factor(1.0) == pytest.approx(0, abs=1e-12)
    assert Schedule("cosine", 0.0).factor(0.0) == 1


@pytest.mark.parametrize("kind", ["constant", "plateau"])
def test_constant_and_plateau_rise_linearly_and_stay(kind: Literal["constant", "plateau"]) -> None:
    schedule = Schedule(kind, 0.25)
    assert [schedule.factor(used) for used in (0, 0.125, 0.25, 0.5, 1)] == [0, 0.5, 1, 1, 1]


def test_plateau_halves_after_two_validations_in_a_row_that_are_no_better_than_the_best() -> None:
    schedule = Schedule("plateau", 0.0)
    factors = []
    for sdr_db in (-3.0, -2.0, -2.5, -1.0, -1.0, -1.5, -1.2, -1.1, -0.5, -0.6, -0.5):
        schedule.on_validation(sdr_db)
        factors.append(schedule.factor(0.5))
    # Best -2, one worse; best -1, equal and worse: half; worse twice: a quarter; best -0.5, worse and equal: an eighth.
    assert factors == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


@pytest.mark.parametrize("kind", ["cosine", "constant"])
def test_only_plateau_follows_the_validations(kind: Literal["cosine", "constant"]) -> None:
    schedule, untold = Schedule(kind, 0.1), Schedule(kind, 0.1)
    for sdr_db in (5.0, 4.0, 3.0, 2.0):
        schedule.on_validation(sdr_db)
    assert schedule.factor(0.7) == untold.factor(0.7)


@given(scores=st.lists(st.floats(-20, 20), max_size=12), cut=st.integers(0, 12))
def test_plateau_that_went_through_a_checkpoint_is_what_it_would_have_been(scores: list[float], cut: int) -> None:
    whole, first, second = (Schedule("plateau", 0.0) for _ in range(3))
    for sdr_db in scores:
        whole.on_validation(sdr_db)
    for sdr_db in scores[:cut]:
        first.on_validation(sdr_db)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    for sdr_db in scores[cut:]:
        second.on_validation(sdr_db)
    assert second.factor(1.0) == whole.factor(1.0)
    assert second.state() == whole.state()
