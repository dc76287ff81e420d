import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.errors import UserError
from tests.reference import museval
from tests.vocsep.evaluation.evaluation_songs import INF, MADE_UP_ROWS, NAN, made_up, random_stems
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import Engine
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, summarize
from vocsep.evaluation.song import bss_scores
from vocsep.metrics.bsseval import METRICS

Array = NDArray[Any]


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_noise_of_known_energy_gives_that_sdr_in_every_frame(engine: Engine) -> None:
    sample_rate = 2000
    references, noise = random_stems(0, 3 * sample_rate + 500), random_stems(1, 3 * sample_rate + 500)
    wanted = {"vocals": [3.0, -7.5, 12.0], "accompaniment": [0.0, 20.0, 6.5]}
    estimates = {}
    for source in SOURCES:
        estimates[source] = references[source].copy()
        for frame, sdr in enumerate(wanted[source]):
            span = np.s_[:, frame * sample_rate : (frame + 1) * sample_rate]
            signal, error = (values[source][span].astype(np.float64) for values in (references, noise))
            gain = math.sqrt((signal**2).sum() / (error**2).sum() / 10 ** (sdr / 10))
            estimates[source][span] += (gain * error).astype(np.float32)
    (scores,) = bss_scores(references, [estimates], sample_rate, engine)
    assert set(scores) == set(SOURCES)
    for source in SOURCES:
        assert list(scores[source]) == list(METRICS)
        np.testing.assert_allclose(scores[source]["SDR"], wanted[source], rtol=0, atol=1e-3)


def test_scores_of_either_engine_are_those_of_museval_on_a_demo_song(demo_root: Path) -> None:
    song = open_dataset(demo_root).split("test")[0]
    sources, sample_rate = read_sources(song, ("mixture", *SOURCES))
    sources = {name: waveform[:, sample_rate : 3 * sample_rate + 100] for name, waveform in sources.items()}
    mixture = sources.pop("mixture")
    # Every kind of error: another level, a filter, the other source, and noise, which also fills the upper band.
    noise = random_stems(2, mixture.shape[1], scale=0.02)
    estimates = {source: 0.8 * sources[source] + 0.1 * mixture + noise[source] for source in SOURCES}
    for source in SOURCES:
        estimates[source][:, 3:] += 0.2 * sources[source][:, :-3]
    expected = museval.evaluate(
        [sources[source].T for source in SOURCES],
        [estimates[source].T for source in SOURCES],
        win=sample_rate,
        hop=sample_rate,
    )
    for engine in ("fast", "museval"):
        (scores,) = bss_scores(sources, [estimates], sample_rate, engine)
        for metric, values in zip(METRICS, expected, strict=True):
            assert values.shape == (2, 2)
            found = [scores[source][metric] for source in SOURCES]
            np.testing.assert_allclose(found, values, rtol=0, atol=1e-6 if metric == "SDR" else 1e-3)


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_song_without_vocals_has_no_counted_frame(engine: Engine) -> None:
    references, estimates = random_stems(0, 6000), random_stems(1, 6000)
    references["vocals"][:] = 0
    (scores,) = bss_scores(references, [estimates], 2000, engine)
    for source in SOURCES:
        for metric in METRICS:
            assert len(scores[source][metric]) == 3
            assert np.isnan(scores[source][metric]).all()


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_frames_in_which_a_source_is_silent_are_not_counted(engine: Engine) -> None:
    references, estimates = random_stems(0, 6000), random_stems(1, 6000)
    references["vocals"][:, 2000:4000] = 0
    (scores,) = bss_scores(references, [estimates], 2000, engine)
    for source in SOURCES:
        for metric in METRICS:
            assert np.isnan(scores[source][metric]).tolist() == [False, True, False]


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_waveforms_of_different_shapes_are_refused_in_one_line(engine: Engine) -> None:
    references, estimates = random_stems(0, 4000), random_stems(1, 4000)
    estimates["accompaniment"] = estimates["accompaniment"][:, :-1]
    with pytest.raises(UserError, match=r"differ in shape: \(2, 3999\), \(2, 4000\)"):
        bss_scores(references, [estimates], 2000, engine)
    estimates["accompaniment"] = references["accompaniment"][:1]
    with pytest.raises(UserError, match="differ in shape"):
        bss_scores(references, [estimates], 2000, engine)


@pytest.mark.parametrize("engine", ["fast", "museval"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("source", SOURCES)
def test_estimate_with_nan_or_infinite_samples_is_refused_and_not_scored(
    source: str, value: float, engine: Engine
) -> None:
    references, estimates = random_stems(0, 4000), random_stems(1, 4000)
    estimates[source][1, 3999] = value
    with pytest.raises(UserError, match="NaN") as error:
        bss_scores(references, [estimates], 2000, engine)
    assert "\n" not in str(error.value)


# Summaries


def test_summary_is_median_and_mean_over_songs_of_the_medians_over_counted_frames() -> None:
    songs = [
        made_up("one", [1.0, NAN, 2.0, 9.0], whole=1.0),  # median 2
        made_up("two", [4.0, 5.0, INF, -INF], whole=7.0),  # median 4.5
        made_up("silent", [NAN, NAN], whole=NAN),  # not counted
        made_up("muted", [NAN], whole=-INF),  # not counted
        made_up("three", [10.0], accompaniment=[NAN], whole=-2.0),  # median 10; accompaniment not counted
    ]
    summary = summarize(songs)
    assert list(summary) == list(MADE_UP_ROWS)
    for row, offset in (("model", 0.0), ("mixture", -10.0), ("irm1", 10.0)):
        assert list(summary[row]) == list(SOURCES)
        for metric in METRICS:
            vocals, accompaniment = (summary[row][source][metric] for source in SOURCES)
            assert vocals == pytest.approx({"median": 4.5 + offset, "mean": 5.5 + offset})
            assert accompaniment == pytest.approx({"median": 3.25 + offset, "mean": 3.25 + offset})
        for source in SOURCES:
            assert list(summary[row][source]) == [*METRICS, *WHOLE_SONG_METRICS]
            for metric in WHOLE_SONG_METRICS:
                assert summary[row][source][metric] == pytest.approx({"median": 1.0 + offset, "mean": 2.0 + offset})


def test_median_of_a_song_is_over_finite_frames_and_nan_where_there_is_none() -> None:
    assert made_up("song", [NAN, 3.0, INF, 1.0]).median("model", "vocals", "SDR") == 2.0
    assert math.isnan(made_up("song", [NAN, INF]).median("model", "vocals", "SDR"))
    assert math.isnan(made_up("song", []).median("model", "vocals", "SDR"))
    assert math.isnan(made_up("song", [1.0]).median("against", "vocals", "SDR"))


@pytest.mark.parametrize("frames", [[], [NAN, NAN]])
def test_summary_of_nothing_counted_holds_none_and_no_nan(frames: list[float]) -> None:
    summary = summarize([made_up("silent", frames, whole=NAN)])
    assert list(summary) == list(MADE_UP_ROWS)
    for row in summary.values():
        for source in row.values():
            assert all(figures == {"median": None, "mean": None} for figures in source.values())
    assert summarize([]) == {}


def test_row_that_only_some_songs_have_is_summed_up_over_those() -> None:
    songs = [made_up("one", [1.0], others={"against": 2.0}), made_up("two", [5.0])]
    summary = summarize(songs)
    assert list(summary) == ["model", "against", "mixture", "irm1"]
    assert summary["against"]["vocals"]["SDR"] == {"median": 3.0, "mean": 3.0}


def test_frames_are_counted_silent_in_the_song_or_muted_by_the_estimate() -> None:
    song = made_up("song", [1.0, NAN, NAN, NAN, 2.0])
    for source in SOURCES:
        for metric in METRICS:
            song.rows["mixture"][source][metric] = [-9.0, -9.0, NAN, -9.0, -8.0]
    assert song.frames("model") == (2, 1, 2)
    assert song.frames("mixture") == (4, 1, 0)
