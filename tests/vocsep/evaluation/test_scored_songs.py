import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from storage.errors import UserError
from tests.reference import museval
from tests.vocsep.evaluation.evaluation_songs import (
    CEILINGS,
    INF,
    NAN,
    RATE,
    add_model,
    mono_stems,
    random_stems,
    resolve_evaluation,
    write_stems,
)
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import Engine
from vocsep.evaluation.oracles import ideal_estimates
from vocsep.evaluation.report.writing import summarize_report
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, SongScores, summarize
from vocsep.evaluation.song import bss_scores, evaluate_song, museval_json
from vocsep.evaluation.subjects import ModelSubject, Subject
from vocsep.metrics.bsseval import METRICS
from vocsep.separation.cache import cached_separator
from vocsep.separation.settings import SeparationSettings
from vocsep.spectrograms.config import load_spectrogram_config

Array = NDArray[Any]

# One song, and museval's files


Evaluated = tuple[Path, list[SongScores], Dataset, Path]
EVALUATED_ROWS = ("model", "against", "mixture", *CEILINGS)


@pytest.fixture(scope="module")
def evaluated(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Both demo test songs, scored with two untrained models: report folder, scores, dataset and registry."""
    folder = tmp_path_factory.mktemp("evaluated")
    subjects: dict[str, Subject] = {}
    for seed, row in enumerate(("model", "against")):
        model = add_model(folder / "models", seed=seed)
        subjects[row] = ModelSubject(folder / "models", str(model.version))
    dataset = open_dataset(demo_root)
    scores = [evaluate_song(song, subjects, folder / "report") for song in dataset.split("test")]
    return folder / "report", scores, dataset, folder / "models"


def test_evaluated_song_has_a_value_per_second_in_every_row_and_the_ceiling_is_above_the_floor(
    evaluated: Evaluated,
) -> None:
    _, scores, dataset, _ = evaluated
    assert [song.name for song in scores] == [song.name for song in dataset.split("test")]
    for song in scores:
        assert 4 <= song.seconds <= 5.001
        assert list(song.rows) == list(song.whole) == list(EVALUATED_ROWS)
        for row in EVALUATED_ROWS:
            for source in SOURCES:
                assert {len(song.rows[row][source][metric]) for metric in METRICS} == {int(song.seconds)}
                assert list(song.whole[row][source]) == list(WHOLE_SONG_METRICS)
                assert all(map(math.isfinite, song.whole[row][source].values()))
        for source in SOURCES:
            floor = song.median("mixture", source, "SDR")
            for row in CEILINGS:
                assert song.median(row, source, "SDR") > floor + 3
        for metric in METRICS:
            assert math.isfinite(song.median("model", "vocals", metric))


@pytest.mark.parametrize("row", EVALUATED_ROWS)
def test_whole_song_measures_of_every_row_are_those_of_its_estimates(evaluated: Evaluated, row: str) -> None:
    _, scores, dataset, models = evaluated
    sources, sample_rate = read_sources(dataset.split("test")[0], ("mixture", *SOURCES))
    mixture = sources.pop("mixture")
    if row == "mixture":
        estimates = dict.fromkeys(SOURCES, mixture)
    elif row in CEILINGS:
        fine = load_spectrogram_config("fine")
        power, full_band = (1 if "irm1" in row else 2), "full" in row
        estimates = ideal_estimates(
            mixture, sources, sample_rate, fine, power=1 if power == 1 else 2, full_band=full_band
        )
    else:
        settings = SeparationSettings(model="1" if row == "model" else "2", precision="32")
        estimates = cached_separator(models, settings).separate(mixture, sample_rate)
    for source in SOURCES:
        true, estimate = (stems[source].astype(np.float64).ravel() for stems in (sources, estimates))
        song_sdr = 10 * np.log10(true @ true / ((estimate - true) @ (estimate - true)))
        projected = true * (true @ estimate) / (true @ true)
        si_sdr = 10 * np.log10(projected @ projected / ((estimate - projected) @ (estimate - projected)))
        assert scores[0].whole[row][source] == pytest.approx({"SI-SDR": si_sdr, "song SDR": song_sdr}, abs=1e-4)
        assert scores[0].value(row, source, "SI-SDR") == scores[0].whole[row][source]["SI-SDR"]
        assert scores[0].value(row, source, "SDR") == scores[0].median(row, source, "SDR")


def test_two_models_score_differently_and_the_mask_of_a_model_never_beats_the_ideal_one(evaluated: Evaluated) -> None:
    _, scores, _, _ = evaluated
    for song in scores:
        first, second = (song.median(row, "vocals", "SDR") for row in ("model", "against"))
        assert first != second
        assert max(first, second) < song.median("irm1", "vocals", "SDR")


def test_floor_is_the_mixture_scored_as_estimate_of_both_sources(
    evaluated: Evaluated,
) -> None:
    _, scores, dataset, _ = evaluated
    sources, sample_rate = read_sources(dataset.split("test")[0], ("mixture", *SOURCES))
    for source in SOURCES:
        expected = []
        for start in range(0, sources["mixture"].shape[1] - sample_rate + 1, sample_rate):
            true, mixture = (
                sources[name][:, start : start + sample_rate].astype(np.float64) for name in (source, "mixture")
            )
            expected.append(10 * np.log10((true**2).sum() / ((mixture - true) ** 2).sum()))
        found = np.array(scores[0].rows["mixture"][source]["SDR"])
        counted = np.isfinite(found)
        assert counted.any()
        np.testing.assert_allclose(found[counted], np.array(expected)[counted], rtol=0, atol=1e-4)


def test_file_of_every_song_and_row_is_valid_in_musevals_schema_and_holds_the_scores(
    evaluated: Evaluated,
) -> None:
    report, scores, _, _ = evaluated
    written = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert written == {f"{row}/test/{song.track_id}.json" for row in EVALUATED_ROWS for song in scores}
    for row in EVALUATED_ROWS:
        for song in scores:
            track = museval.TrackStore(track_name=song.name)
            track.scores = json.loads((report / row / "test" / f"{song.track_id}.json").read_text())
            track.validate()
            assert [target["name"] for target in track.scores["targets"]] == list(SOURCES)
            for target in track.scores["targets"]:
                assert [frame["time"] for frame in target["frames"]] == list(range(int(song.seconds)))
                assert {frame["duration"] for frame in target["frames"]} == {1.0}
                for metric in METRICS:
                    values = [frame["metrics"][metric] for frame in target["frames"]]
                    kept = np.array(song.rows[row][target["name"]][metric])
                    kept[np.isinf(kept)] = NAN  # museval writes infinite values as NaN
                    np.testing.assert_allclose(values, kept, rtol=0, atol=1e-5)


@pytest.mark.parametrize("row", EVALUATED_ROWS)
def test_musevals_own_aggregation_of_a_rows_folder_gives_the_same_summary(evaluated: Evaluated, row: str) -> None:
    report, scores, _, _ = evaluated
    summary = summarize(scores)
    for aggregation in ("median", "mean"):
        store = museval.EvalStore(frames_agg="median", tracks_agg=aggregation)
        store.add_eval_dir(report / row)
        theirs = store.agg_frames_tracks_scores()
        assert len(theirs) == len(SOURCES) * len(METRICS)
        for source in SOURCES:
            for metric in METRICS:
                ours = summary[row][source][metric][aggregation]
                assert ours == pytest.approx(theirs[source][metric], abs=1.1e-5, nan_ok=True)


def test_song_that_cannot_be_read_is_one_line_and_leaves_no_file(evaluated: Evaluated, tmp_path: Path) -> None:
    _, _, _, models = evaluated
    for stem in ("vocals", "accompaniment"):
        path = tmp_path / "songs" / "test" / "Broken" / f"{stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not audio")
    (song,) = open_dataset(tmp_path / "songs", "folder").split("test")
    with pytest.raises(UserError, match="Broken") as error:
        evaluate_song(song, {"model": ModelSubject(models, "1")}, tmp_path / "report")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("row", ["model", "mixture", "irm1"])
def test_either_engine_gives_the_same_summary_of_a_demo_song(
    evaluated: Evaluated, by_museval: SongScores, row: str
) -> None:
    _, scores, _, _ = evaluated
    fast, reference = summarize(scores[:1])[row], summarize([by_museval])[row]
    for source in SOURCES:
        assert list(reference[source]) == [*METRICS, *WHOLE_SONG_METRICS]
        for metric in ("SDR", *WHOLE_SONG_METRICS):
            for aggregation in ("median", "mean"):
                assert fast[source][metric][aggregation] == pytest.approx(
                    reference[source][metric][aggregation], abs=0.01
                )
        assert scores[0].counted(row, source, "SDR") == by_museval.counted(row, source, "SDR") > 0


@pytest.fixture(scope="module")
def by_museval(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> SongScores:
    """The first demo test song, scored by museval itself."""
    _, _, dataset, models = evaluated
    folder = tmp_path_factory.mktemp("by-museval")
    return evaluate_song(dataset.split("test")[0], {"model": ModelSubject(models, "1")}, folder, "museval")


# What could flatter or crash


def score_folder(
    root: Path, truth: dict[str, Waveform], estimates: dict[str, Waveform], engine: Engine = "fast"
) -> tuple[SongScores, dict[str, Any]]:
    """Scores of one song of these stems and of estimates of it in a folder, and the report's summary."""
    write_stems(root / "songs" / "test" / "Song", truth)
    write_stems(root / "estimates" / "test" / "Song", estimates)
    target = resolve_evaluation(
        root / "models", "latest", root / "songs", "folder", "test", root / "none.zarr", estimates=root / "estimates"
    )
    scores = [evaluate_song(song, target.subjects, root / "report", engine) for song in target.songs]
    summary = summarize_report(target, scores, {})
    json.dumps(summary, allow_nan=False)
    return scores[0], summary


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_estimate_of_zeros_throughout_counts_for_nothing_and_is_named(tmp_path: Path, engine: Engine) -> None:
    truth = mono_stems(0, 3 * RATE)
    estimates = {"vocals": np.zeros_like(truth["vocals"]), "accompaniment": sum_of(truth)}
    scores, summary = score_folder(tmp_path, truth, estimates, engine)
    for source in SOURCES:
        for metric in METRICS:
            assert scores.counted("model", source, metric) == 0
            assert summary["rows"]["model"][source][metric] == {"median": None, "mean": None}
    assert summary["songs_without_score"] == ["Song"]
    assert summary["muted_songs"] == ["Song"]
    assert scores.frames("model") == (0, 0, 3)
    assert scores.frames("mixture") == (3, 0, 0)
    assert scores.whole["model"]["vocals"]["SI-SDR"] == -INF
    assert summary["rows"]["model"]["vocals"]["SI-SDR"] == {"median": None, "mean": None}
    # The whole song is scored all the same: silence errs by as much as there is.
    assert summary["rows"]["model"]["vocals"]["song SDR"]["median"] == pytest.approx(0.0, abs=1e-6)


def sum_of(stems: dict[str, Waveform]) -> Waveform:
    return stems["vocals"] + stems["accompaniment"]


def test_estimate_muted_for_a_second_is_named_though_it_has_a_score(tmp_path: Path) -> None:
    truth = mono_stems(0, 4 * RATE)
    noise = mono_stems(1, 4 * RATE, scale=0.1)
    estimates = {source: truth[source] + noise[source] for source in SOURCES}
    estimates["vocals"][:, 2 * RATE : 3 * RATE] = 0
    scores, summary = score_folder(tmp_path, truth, estimates)
    assert summary["muted_songs"] == ["Song"]
    assert summary["songs_without_score"] == []
    assert scores.frames("model") == (3, 0, 1)
    for row in ("mixture", *CEILINGS):
        assert scores.frames(row) == (4, 0, 0)


def test_song_that_is_silent_itself_for_a_second_is_not_called_muted(tmp_path: Path) -> None:
    truth = mono_stems(0, 4 * RATE)
    truth["vocals"][:, RATE : 2 * RATE] = 0
    noise = mono_stems(1, 4 * RATE, scale=0.1)
    scores, summary = score_folder(tmp_path, truth, {source: truth[source] + noise[source] for source in SOURCES})
    assert summary["muted_songs"] == summary["songs_without_score"] == []
    assert scores.frames("model") == (3, 1, 0)


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_wrong_level_costs_sdr_what_the_closed_form_says_and_si_sdr_nothing(tmp_path: Path, engine: Engine) -> None:
    truth = mono_stems(0, 3 * RATE)
    estimates = {source: (0.1 * truth[source].astype(np.float64)).astype(np.float32) for source in SOURCES}
    scores, summary = score_folder(tmp_path, truth, estimates, engine)
    expected = -20 * math.log10(1 - 0.1)
    for source in SOURCES:
        np.testing.assert_allclose(scores.rows["model"][source]["SDR"], expected, rtol=0, atol=1e-4)
        figures = summary["rows"]["model"][source]
        assert figures["SDR"]["median"] == pytest.approx(expected, abs=1e-4)
        assert figures["song SDR"]["median"] == pytest.approx(expected, abs=1e-4)
        assert figures["SI-SDR"]["median"] > 100  # single precision's rounding is left


def test_songs_own_stems_as_estimates_have_no_finite_score_and_are_named(tmp_path: Path) -> None:
    truth = mono_stems(0, 3 * RATE)
    scores, summary = score_folder(tmp_path, truth, truth)
    assert scores.rows["model"]["vocals"]["SDR"] == [INF, INF, INF]
    assert summary["rows"]["model"]["vocals"]["SDR"] == {"median": None, "mean": None}
    assert summary["muted_songs"] == []
    assert summary["songs_without_score"] == ["Song"]


def test_swapped_axes_are_refused_in_one_line() -> None:
    references, estimates = random_stems(0, 4000), random_stems(1, 4000)
    swapped = {source: estimates[source].T for source in SOURCES}
    with pytest.raises(UserError, match=r"differ in shape: \(2, 4000\), \(4000, 2\)") as error:
        bss_scores(references, [swapped], 2000)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="axes look swapped") as error:
        bss_scores({source: references[source].T for source in SOURCES}, [swapped], 2000)
    assert "\n" not in str(error.value)


def test_swapped_axes_are_refused_before_museval_takes_them_for_a_song_of_many_channels() -> None:
    references, estimates = ({source: random_stems(seed, 3)[source].T for source in SOURCES} for seed in (0, 1))
    with pytest.raises(UserError, match="axes look swapped"):
        bss_scores(references, [estimates], 2000, "museval")


@pytest.mark.parametrize("engine", ["fast", "museval"])
@pytest.mark.parametrize("samples", [RATE - 1, RATE, RATE // 4])
def test_song_no_longer_than_a_window_is_one_frame(tmp_path: Path, samples: int, engine: Engine) -> None:
    truth, noise = mono_stems(0, samples), mono_stems(1, samples)
    estimates = {source: truth[source] + 0.1 * noise[source] for source in SOURCES}
    scores, summary = score_folder(tmp_path, truth, estimates, engine)
    for source in SOURCES:
        (sdr,) = scores.rows["model"][source]["SDR"]
        true, error = (stems[source].astype(np.float64) for stems in (truth, noise))
        expected = 10 * math.log10((true**2).sum() / (0.01 * (error**2).sum()))
        assert sdr == pytest.approx(expected, abs=1e-4)
        assert sdr == pytest.approx(scores.whole["model"][source]["song SDR"], abs=1e-6)
    assert scores.frames("model") == (1, 0, 0)
    assert summary["songs_without_score"] == []


@pytest.mark.parametrize("engine", ["fast", "museval"])
@pytest.mark.parametrize("silent", SOURCES)
def test_song_without_one_of_the_sources_is_not_counted_and_does_no_harm(
    tmp_path: Path, silent: str, engine: Engine
) -> None:
    truth, estimates = mono_stems(0, 3 * RATE), mono_stems(1, 3 * RATE)
    truth[silent][:] = 0
    scores, summary = score_folder(tmp_path, truth, estimates, engine)
    for row in ("model", "mixture", *CEILINGS):
        for source in SOURCES:
            assert all(scores.counted(row, source, metric) == 0 for metric in METRICS)
        assert all(math.isnan(value) for value in scores.whole[row][silent].values())
        assert summary["rows"][row][silent]["song SDR"] == {"median": None, "mean": None}
    assert scores.frames("model") == (0, 3, 0)
    assert summary["songs_without_score"] == ["Song"]
    assert summary["muted_songs"] == []


def test_the_json_is_what_musevals_own_store_writes() -> None:
    values = {metric: [1.0000051, float("nan"), float("inf"), -3.123456789] for metric in ("SDR", "SIR", "SAR", "ISR")}
    rows = {"model": {"vocals": values, "accompaniment": values}}
    store = museval.TrackStore(win=1.0, hop=1.0, track_name="song")
    for source in ("vocals", "accompaniment"):
        store.add_target(source, values)
    store.validate()
    written = json.loads(museval_json(SongScores("song", "song", 4.0, rows, {}), "model"))
    jsonschema.validate(written, store.schema)
    np.testing.assert_equal(written, json.loads(store.json))
