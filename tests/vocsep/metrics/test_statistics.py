import math

import numpy as np
import pytest

from vocsep.metrics.statistics import bootstrap_interval, lower_bound, paired_difference


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


@pytest.mark.parametrize("songs", [3, 6, 25])
@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_of_equal_systems_one_is_taken_for_better_no_oftener_than_the_confidence_allows(songs: int, draw: str) -> None:
    random = np.random.default_rng(4)
    samples = getattr(random, draw)(0.0, 1.0, (4000, songs))
    better = np.mean([(lower_bound(sample.tolist(), 0.95) or -1) > 0 for sample in samples])
    # 5 %, and 4 standard errors of 4000 trials.
    assert better <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)
    if draw == "normal":
        assert better >= 0.05 - 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_lower_bound_is_that_of_the_textbook() -> None:
    # "Student": The probable error of a mean, 1908, hours of sleep gained by the first drug; t(0.95, 9) = 1.8331.
    hours = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    assert lower_bound(hours, 0.95) == pytest.approx(0.75 - 1.8331 * 1.7890 / math.sqrt(10), abs=1e-3)
    assert lower_bound([1.0, 1.0, 1.0], 0.99) == 1.0
    assert lower_bound([0.0, 0.0], 0.95) == 0.0
    assert lower_bound([5.0], 0.95) is None
