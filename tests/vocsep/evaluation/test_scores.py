import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from tests.reference import museval
from tests.vocsep.models.small_models import unet
from vocsep.arrays import Waveform
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset
from vocsep.datasets.sources import read_sources
from vocsep.evaluation.config import Engine, EvaluateConfig
from vocsep.evaluation.oracles import ideal_estimates
from vocsep.evaluation.report.writing import summarize_report
from vocsep.evaluation.scores import SOURCES, WHOLE_SONG_METRICS, SongScores, summarize
from vocsep.evaluation.song import _museval_json, bss_scores, evaluate_song
from vocsep.evaluation.subjects import FolderSubject, ModelSubject, Subject
from vocsep.evaluation.target import Target, resolve
from vocsep.metrics.bsseval import METRICS
from vocsep.separation.cache import cached_separator
from vocsep.separation.settings import SeparationSettings
from vocsep.spectrograms.config import load_spectrogram_config

Array = NDArray[Any]


def resolve_evaluation(
    models: Path, model: str, dataset: Path | None, kind: str, split: str, store: Path, **options: Any
) -> Target:
    return resolve(
        EvaluateConfig(models=models, model=model, dataset=dataset, kind=kind, split=split, store=store, **options)
    )


NAN, INF = float("nan"), float("inf")

CEILINGS = ("irm1", "irm2", "irm1_full", "irm2_full")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of linear algebra that wait for each other on busy cores take many times as long."""
    with threadpool_limits(1):
        yield


def add_model(folder: Path, data: dict[str, Any] | None = None, seed: int = 0) -> ModelVersion:
    """An untrained network as the next version of a registry."""
    torch.manual_seed(seed)
    weights = {name: value.numpy() for name, value in unet(1, width=2).state_dict().items()}
    description: dict[str, Any] = {
        "architecture": {"name": "unet", "channels": 1, "width": 2, "targets": 1, "scaled_bins": None},
        "spectrogram": load_spectrogram_config("fine").model_dump(mode="json"),
        "targets": ["vocals"],
    }
    return ModelRegistry(folder).add(weights, description | ({"data": data} if data else {}))


def random_stems(seed: int, samples: int, scale: float = 1.0, channels: int = 2) -> dict[str, Waveform]:
    random = np.random.default_rng(seed)
    return {source: (scale * random.uniform(-0.5, 0.5, (channels, samples))).astype(np.float32) for source in SOURCES}


def every_metric(values: Sequence[float]) -> dict[str, list[float]]:
    return {metric: list(values) for metric in METRICS}


def made_up(
    name: str,
    vocals: Sequence[float],
    accompaniment: Sequence[float] | None = None,
    *,
    whole: float = 0.0,
    others: dict[str, float] | None = None,
) -> SongScores:
    """A song whose model row has these frames in every metric, the floor 10 dB below and the ceiling 10 dB above.

    `whole` is what the whole song scores, `others` more rows and by how much they differ from the model.
    """
    rows, whole_song = {}, {}
    for row, offset in {"model": 0.0, **(others or {}), "mixture": -10.0, "irm1": 10.0}.items():
        frames = {"vocals": vocals, "accompaniment": vocals if accompaniment is None else accompaniment}
        rows[row] = {source: every_metric([value + offset for value in frames[source]]) for source in SOURCES}
        whole_song[row] = {source: dict.fromkeys(WHOLE_SONG_METRICS, whole + offset) for source in SOURCES}
    return SongScores(f"id-{name}", name, float(len(vocals)), rows, whole_song)


MADE_UP_ROWS = ("model", "mixture", "irm1")


# Scores


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
    scores = bss_scores(references, estimates, sample_rate, engine)
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
        scores = bss_scores(sources, estimates, sample_rate, engine)
        for metric, values in zip(METRICS, expected, strict=True):
            assert values.shape == (2, 2)
            found = [scores[source][metric] for source in SOURCES]
            np.testing.assert_allclose(found, values, rtol=0, atol=1e-6 if metric == "SDR" else 1e-3)


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_song_without_vocals_has_no_counted_frame(engine: Engine) -> None:
    references, estimates = random_stems(0, 6000), random_stems(1, 6000)
    references["vocals"][:] = 0
    scores = bss_scores(references, estimates, 2000, engine)
    for source in SOURCES:
        for metric in METRICS:
            assert len(scores[source][metric]) == 3
            assert np.isnan(scores[source][metric]).all()


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_frames_in_which_a_source_is_silent_are_not_counted(engine: Engine) -> None:
    references, estimates = random_stems(0, 6000), random_stems(1, 6000)
    references["vocals"][:, 2000:4000] = 0
    scores = bss_scores(references, estimates, 2000, engine)
    for source in SOURCES:
        for metric in METRICS:
            assert np.isnan(scores[source][metric]).tolist() == [False, True, False]


@pytest.mark.parametrize("engine", ["fast", "museval"])
def test_waveforms_of_different_shapes_are_refused_in_one_line(engine: Engine) -> None:
    references, estimates = random_stems(0, 4000), random_stems(1, 4000)
    estimates["accompaniment"] = estimates["accompaniment"][:, :-1]
    with pytest.raises(UserError, match=r"differ in shape: \(2, 3999\), \(2, 4000\)"):
        bss_scores(references, estimates, 2000, engine)
    estimates["accompaniment"] = references["accompaniment"][:1]
    with pytest.raises(UserError, match="differ in shape"):
        bss_scores(references, estimates, 2000, engine)


@pytest.mark.parametrize("engine", ["fast", "museval"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("source", SOURCES)
def test_estimate_with_nan_or_infinite_samples_is_refused_and_not_scored(
    source: str, value: float, engine: Engine
) -> None:
    references, estimates = random_stems(0, 4000), random_stems(1, 4000)
    estimates[source][1, 3999] = value
    with pytest.raises(UserError, match="NaN") as error:
        bss_scores(references, estimates, 2000, engine)
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
        estimates = cached_separator(models, SeparationSettings(model="1" if row == "model" else "2")).separate(
            mixture, sample_rate
        )
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

RATE = 8000


def mono_stems(seed: int, samples: int, scale: float = 1.0) -> dict[str, Waveform]:
    """Noise in one channel, for which scoring is quickest."""
    return random_stems(seed, samples, scale, channels=1)


def write_stems(folder: Path, stems: dict[str, Waveform], sample_rate: int = RATE) -> None:
    """Write `<folder>/<name>.wav`, as float, for every stem."""
    folder.mkdir(parents=True)
    for name, waveform in stems.items():
        soundfile.write(folder / f"{name}.wav", waveform.T, sample_rate, subtype="FLOAT")


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
        bss_scores(references, swapped, 2000)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="axes look swapped") as error:
        bss_scores({source: references[source].T for source in SOURCES}, swapped, 2000)
    assert "\n" not in str(error.value)


def test_swapped_axes_are_refused_before_museval_takes_them_for_a_song_of_many_channels() -> None:
    references, estimates = ({source: random_stems(seed, 3)[source].T for source in SOURCES} for seed in (0, 1))
    with pytest.raises(UserError, match="axes look swapped"):
        bss_scores(references, estimates, 2000, "museval")


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


# What is evaluated


@pytest.fixture(scope="module")
def models(demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of one model that was trained on the demo's training songs; without a champion."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    names = {split: [track.name for track in demo_store.tracks(split)] for split in ("train", "valid")}
    add_model(folder, names)
    return folder


def with_champion(folder: Path, versions: int = 2, champion: int = 1) -> Path:
    """A registry of this many models."""
    for seed in range(versions):
        add_model(folder, seed=seed)
    ModelRegistry(folder).promote(champion)
    return folder


def test_dataset_is_the_one_that_the_store_was_made_from_unless_named(
    models: Path, demo_root: Path, demo_store: SpectrogramStore
) -> None:
    for dataset in (None, demo_root):
        target = resolve_evaluation(models, "latest", dataset, "auto", "test", demo_store.path)
        assert list(target.models) == list(target.subjects) == ["model"]
        assert target.models["model"].version == 1
        assert target.subjects["model"] == ModelSubject(models.resolve(), "1")
        assert target.label == "model0001"
        assert target.title == target.titles["model"]
        assert str(models / "0001") in target.title
        assert target.split == "test"
        assert target.dataset.root == demo_root.resolve()
        assert target.songs == tuple(open_dataset(demo_root).split("test"))
        assert len(target.songs) == 2


def test_model_folder_outside_the_registry_is_named_by_its_path(models: Path, demo_root: Path, tmp_path: Path) -> None:
    target = resolve_evaluation(
        tmp_path / "none", str(models / "0001"), demo_root, "auto", "test", tmp_path / "no.zarr"
    )
    assert target.models["model"].version is None
    subject = target.subjects["model"]
    assert isinstance(subject, ModelSubject)
    assert subject.model == str((models / "0001").resolve())
    assert str(models / "0001") in target.title


def test_model_is_named_by_its_number_so_that_a_newer_one_or_a_moved_champion_changes_nothing(
    demo_root: Path, tmp_path: Path
) -> None:
    models = with_champion(tmp_path / "models")
    for name, version in (("latest", "2"), ("champion", "1")):
        target = resolve_evaluation(models, name, demo_root, "auto", "test", tmp_path / "no.zarr")
        assert target.subjects["model"] == ModelSubject(models.resolve(), version)


def rows_of(demo_root: Path, models: Path, model: str, **options: Any) -> dict[str, str]:
    """Row to the name of the model, or the folder."""
    target = resolve_evaluation(models, model, demo_root, "auto", "test", models / "no.zarr", **options)
    assert list(target.titles) == list(target.subjects)
    return {
        row: str(subject.folder) if isinstance(subject, FolderSubject) else subject.model
        for row, subject in target.subjects.items()
    }


def test_champion_stands_beside_the_model_where_it_is_another_one(demo_root: Path, tmp_path: Path) -> None:
    models = with_champion(tmp_path / "models")
    assert rows_of(demo_root, models, "latest") == {"model": "2", "champion": "1"}
    assert list(rows_of(demo_root, models, "latest")) == ["model", "champion"]
    for name in ("1", "champion"):
        assert rows_of(demo_root, models, name) == {"model": "1"}
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(models / "0002", elsewhere)
    assert rows_of(demo_root, models, str(elsewhere)) == {"model": str(elsewhere), "champion": "1"}


def test_champion_named_by_its_folder_is_not_compared_with_itself(demo_root: Path, tmp_path: Path) -> None:
    models = with_champion(tmp_path / "models")
    assert list(rows_of(demo_root, models, str(models / "0001"))) == ["model"]


def test_named_model_stands_in_the_champions_place(demo_root: Path, tmp_path: Path) -> None:
    models = with_champion(tmp_path / "models", versions=3)
    assert rows_of(demo_root, models, "latest", against="2") == {"model": "3", "against": "2"}
    assert rows_of(demo_root, models, "latest", against="champion") == {"model": "3", "against": "1"}


def test_folder_of_estimates_stands_in_the_models_place(demo_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "estimates"
    folder.mkdir()
    assert rows_of(demo_root, tmp_path / "none", "latest", estimates=folder) == {"model": str(folder)}
    models = with_champion(tmp_path / "models")
    assert rows_of(demo_root, models, "latest", estimates=folder) == {"model": str(folder), "champion": "1"}
    assert rows_of(demo_root, models, "7", estimates=folder, against="2") == {"model": str(folder), "against": "2"}
    target = resolve_evaluation(models, "latest", demo_root, "auto", "train", models / "no.zarr", estimates=folder)
    assert target.title == str(folder)
    assert target.label == "estimates"
    assert target.seen_in_training == []


def test_songs_that_the_model_was_trained_or_validated_on_are_named(models: Path, demo_store: SpectrogramStore) -> None:
    for split, count in (("train", 3), ("valid", 1), ("test", 0)):
        target = resolve_evaluation(models, "1", None, "auto", split, demo_store.path)
        expected = sorted(track.name for track in demo_store.tracks(split)) if count else []
        assert target.seen_in_training == expected
        assert len(expected) == count


def test_model_that_does_not_say_what_it_was_trained_on_has_seen_nothing(
    demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    add_model(tmp_path / "models")
    target = resolve_evaluation(tmp_path / "models", "1", None, "auto", "train", demo_store.path)
    assert target.seen_in_training == []


def test_missing_model_dataset_store_or_split_is_one_line_that_names_it(
    models: Path, demo_root: Path, demo_store: SpectrogramStore, tmp_path: Path
) -> None:
    named: tuple[Path, str, Path | None, str, str, Path] = (models, "1", demo_root, "auto", "test", demo_store.path)
    wrong: list[tuple[str, tuple[Path, str, Path | None, str, str, Path], dict[str, Any]]] = [
        ("no model yet", (tmp_path / "none", "latest", *named[2:]), {}),
        ("7: no such model", (models, "7", *named[2:]), {}),
        ("7: no such model", named, {"against": "7"}),
        ("gone: no such folder of estimates", named, {"estimates": tmp_path / "gone"}),
        ("gone: no such dataset", (models, "1", tmp_path / "gone", "auto", "test", demo_store.path), {}),
        ("'cassette' is no kind", (models, "1", demo_root, "cassette", "test", demo_store.path), {}),
        ("no.zarr: no spectrogram store", (models, "1", None, "auto", "test", tmp_path / "no.zarr"), {}),
        ("no songs in the encore split", (models, "1", demo_root, "auto", "encore", demo_store.path), {}),
    ]
    for message, arguments, options in wrong:
        with pytest.raises(UserError, match=message) as error:
            resolve_evaluation(*arguments, **options)
        assert "\n" not in str(error.value)


def test_the_json_is_what_musevals_own_store_writes() -> None:
    values = {metric: [1.0000051, float("nan"), float("inf"), -3.123456789] for metric in ("SDR", "SIR", "SAR", "ISR")}
    rows = {"model": {"vocals": values, "accompaniment": values}}
    store = museval.TrackStore(win=1.0, hop=1.0, track_name="song")
    for source in ("vocals", "accompaniment"):
        store.add_target(source, values)
    store.validate()
    written = json.loads(_museval_json(SongScores("song", "song", 4.0, rows, {}), "model"))
    jsonschema.validate(written, store.schema)
    np.testing.assert_equal(written, json.loads(store.json))
