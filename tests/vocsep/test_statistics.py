import math

import numpy as np
import pytest

from vocsep.statistics import bootstrap_interval, paired_difference


def test_interval_of_the_mean_is_that_of_the_normal_theory_for_many_songs() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    interval = bootstrap_interval(values.tolist(), "mean")
    assert interval is not None
    half_width = 1.96 * values.std() / math.sqrt(len(values))
    assert interval[0] == pytest.approx(values.mean() - half_width, abs=0.03)
    assert interval[1] == pytest.approx(values.mean() + half_width, abs=0.03)


def test_interval_of_the_median_covers_the_true_median_about_95_times_in_100() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        interval = bootstrap_interval(random.normal(0.0, 1.0, 25).tolist(), "median")
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    # The percentile interval of a median of 25 is a little off its nominal level; +-4 standard errors of 200 trials.
    assert 0.89 <= covered / 200 <= 0.995


def test_interval_is_the_same_each_time_and_none_for_one_song() -> None:
    assert bootstrap_interval([1.0, 2.0, 4.0], "median") == bootstrap_interval([1.0, 2.0, 4.0], "median")
    assert bootstrap_interval([1.0], "mean") is None
    assert bootstrap_interval([], "median") is None


def test_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval([3.0] * 5, "median") == (3.0, 3.0)


def test_pairing_sees_a_small_gain_that_is_hidden_by_the_spread_of_the_songs() -> None:
    random = np.random.default_rng(3)
    songs = random.normal(4.0, 3.0, 25)
    better = songs + 0.2 + random.normal(0.0, 0.1, 25)
    difference = paired_difference(better.tolist(), songs.tolist())
    assert difference is not None
    assert difference.mean == pytest.approx((better - songs).mean())
    assert difference.better == int((better > songs).sum())
    assert difference.is_clear
    separate = bootstrap_interval(better.tolist(), "mean"), bootstrap_interval(songs.tolist(), "mean")
    assert separate[0] is not None
    assert separate[1] is not None
    assert separate[0][0] < separate[1][1]


def test_equal_systems_differ_by_nothing_and_that_is_not_clear() -> None:
    difference = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert difference is not None
    assert (difference.songs, difference.better, difference.mean, difference.is_clear) == (3, 0, 0.0, False)


def test_songs_without_a_score_on_either_side_are_left_out() -> None:
    nan = float("nan")
    difference = paired_difference([1.0, nan, 3.0], [0.0, 2.0, nan])
    assert difference is not None
    assert (difference.songs, difference.mean, difference.interval) == (1, 1.0, None)
    assert paired_difference([nan], [1.0]) is None
