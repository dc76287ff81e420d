import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import museval
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from storage.errors import UserError
from storage.files import read_json
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from vocsep.audio import Waveform
from vocsep.config import load_spectrogram_config
from vocsep.dataset import Dataset, open_dataset, read_sources
from vocsep.evaluation import (
    METRICS,
    ROWS,
    SOURCES,
    Engine,
    SongScores,
    Target,
    bss_scores,
    evaluate_song,
    resolve_evaluation,
    summarize,
)
from vocsep.model import UNet
from vocsep.report import print_summary, report_folder, write_report

Array = NDArray[Any]

NAN, INF = float("nan"), float("inf")

# Some of the names below have letters that matplotlib's own font lacks; it draws boxes and warns.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph:UserWarning")


def add_model(folder: Path, data: dict[str, Any] | None = None) -> ModelVersion:
    """An untrained network as the next version of a registry."""
    torch.manual_seed(0)
    weights = {name: value.numpy() for name, value in UNet(1, width=2).state_dict().items()}
    description: dict[str, Any] = {
        "architecture": {"name": "unet", "channels": 1, "width": 2},
        "spectrogram": load_spectrogram_config("fine").model_dump(mode="json"),
        "targets": ["vocals"],
    }
    return ModelRegistry(folder).add(weights, description | ({"data": data} if data else {}))


def random_stems(seed: int, samples: int, scale: float = 1.0) -> dict[str, Waveform]:
    random = np.random.default_rng(seed)
    return {source: (scale * random.uniform(-0.5, 0.5, (2, samples))).astype(np.float32) for source in SOURCES}


def every_metric(values: Sequence[float]) -> dict[str, list[float]]:
    return {metric: list(values) for metric in METRICS}


def made_up(name: str, vocals: Sequence[float], accompaniment: Sequence[float] | None = None) -> SongScores:
    """A song whose model row has these frames in every metric, the floor 10 dB below and the ceiling 10 dB above."""
    rows = {}
    for row, offset in (("model", 0.0), ("mixture", -10.0), ("irm1", 10.0)):
        frames = {"vocals": vocals, "accompaniment": vocals if accompaniment is None else accompaniment}
        rows[row] = {source: every_metric([value + offset for value in frames[source]]) for source in SOURCES}
    return SongScores(track_id=f"id-{name}", name=name, seconds=float(len(vocals)), rows=rows)


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
        made_up("one", [1.0, NAN, 2.0, 9.0]),  # median 2
        made_up("two", [4.0, 5.0, INF, -INF]),  # median 4.5
        made_up("silent", [NAN, NAN]),  # not counted
        made_up("three", [10.0], accompaniment=[NAN]),  # median 10; accompaniment not counted
    ]
    summary = summarize(songs)
    assert list(summary) == list(ROWS)
    for row, offset in (("model", 0.0), ("mixture", -10.0), ("irm1", 10.0)):
        assert list(summary[row]) == list(SOURCES)
        for metric in METRICS:
            vocals, accompaniment = (summary[row][source][metric] for source in SOURCES)
            assert vocals == pytest.approx({"median": 4.5 + offset, "mean": 5.5 + offset})
            assert accompaniment == pytest.approx({"median": 3.25 + offset, "mean": 3.25 + offset})


def test_median_of_a_song_is_over_finite_frames_and_nan_where_there_is_none() -> None:
    assert made_up("song", [NAN, 3.0, INF, 1.0]).median("model", "vocals", "SDR") == 2.0
    assert math.isnan(made_up("song", [NAN, INF]).median("model", "vocals", "SDR"))
    assert math.isnan(made_up("song", []).median("model", "vocals", "SDR"))


@pytest.mark.parametrize("frames", [[], [NAN, NAN]])
def test_summary_of_nothing_counted_holds_none_and_no_nan(frames: list[float]) -> None:
    for songs in ([], [made_up("silent", frames)]):
        for row in summarize(songs).values():
            for source in row.values():
                assert all(figures == {"median": None, "mean": None} for figures in source.values())


# One song, and museval's files


@pytest.fixture(scope="module")
def evaluated(
    demo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[SongScores], Dataset, Path]:
    """Both demo test songs, scored with an untrained model: report folder, scores, dataset and registry."""
    folder = tmp_path_factory.mktemp("evaluated")
    model = add_model(folder / "models")
    dataset = open_dataset(demo_root)
    scores = [
        evaluate_song(song, folder / "models", str(model.version), folder / "report") for song in dataset.split("test")
    ]
    return folder / "report", scores, dataset, folder / "models"


def test_evaluated_song_has_a_value_per_second_in_every_row_and_the_ceiling_is_above_the_floor(
    evaluated: tuple[Path, list[SongScores], Dataset, Path],
) -> None:
    _, scores, dataset, _ = evaluated
    assert [song.name for song in scores] == [song.name for song in dataset.split("test")]
    for song in scores:
        assert 4 <= song.seconds <= 5.001
        assert list(song.rows) == list(ROWS)
        for row in ROWS:
            for source in SOURCES:
                assert {len(song.rows[row][source][metric]) for metric in METRICS} == {int(song.seconds)}
        for source in SOURCES:
            ideal, floor = (song.median(row, source, "SDR") for row in ("irm1", "mixture"))
            assert ideal > floor + 3
        for metric in METRICS:
            assert math.isfinite(song.median("model", "vocals", metric))


def test_floor_is_the_mixture_scored_as_estimate_of_both_sources(
    evaluated: tuple[Path, list[SongScores], Dataset, Path],
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
    evaluated: tuple[Path, list[SongScores], Dataset, Path],
) -> None:
    report, scores, _, _ = evaluated
    written = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    assert written == {f"{row}/test/{song.track_id}.json" for row in ROWS for song in scores}
    for row in ROWS:
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


@pytest.mark.parametrize("row", ROWS)
def test_musevals_own_aggregation_of_a_rows_folder_gives_the_same_summary(
    evaluated: tuple[Path, list[SongScores], Dataset, Path], row: str
) -> None:
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


def test_song_that_cannot_be_read_is_one_line_and_leaves_no_file(
    evaluated: tuple[Path, list[SongScores], Dataset, Path], tmp_path: Path
) -> None:
    _, _, _, models = evaluated
    for stem in ("vocals", "accompaniment"):
        path = tmp_path / "songs" / "test" / "Broken" / f"{stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not audio")
    (song,) = open_dataset(tmp_path / "songs", "folder").split("test")
    with pytest.raises(UserError, match="Broken") as error:
        evaluate_song(song, models, "1", tmp_path / "report")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report").exists()


# What is evaluated


@pytest.fixture(scope="module")
def models(demo_store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of one model that was trained on the demo's training songs."""
    folder = tmp_path_factory.mktemp("registry") / "models"
    names = {split: [track.name for track in demo_store.tracks(split)] for split in ("train", "valid")}
    add_model(folder, names)
    return folder


def test_dataset_is_the_one_that_the_store_was_made_from_unless_named(
    models: Path, demo_root: Path, demo_store: SpectrogramStore
) -> None:
    for dataset in (None, demo_root):
        target = resolve_evaluation(models, "latest", dataset, "auto", "test", demo_store.path)
        assert target.model.version == 1
        assert target.model_name == "1"
        assert target.split == "test"
        assert target.dataset.root == demo_root.resolve()
        assert target.songs == tuple(open_dataset(demo_root).split("test"))
        assert len(target.songs) == 2


def test_model_folder_outside_the_registry_is_named_by_its_path(models: Path, demo_root: Path, tmp_path: Path) -> None:
    target = resolve_evaluation(
        tmp_path / "none", str(models / "0001"), demo_root, "auto", "test", tmp_path / "no.zarr"
    )
    assert target.model.version is None
    assert target.model_name == str((models / "0001").resolve())


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
    wrong: list[tuple[str, tuple[Path, str, Path | None, str, str, Path]]] = [
        ("no model yet", (tmp_path / "none", "latest", demo_root, "auto", "test", demo_store.path)),
        ("7: no such model", (models, "7", demo_root, "auto", "test", demo_store.path)),
        ("gone: no such dataset", (models, "1", tmp_path / "gone", "auto", "test", demo_store.path)),
        ("'cassette' is no kind", (models, "1", demo_root, "cassette", "test", demo_store.path)),
        ("no.zarr: no spectrogram store", (models, "1", None, "auto", "test", tmp_path / "no.zarr")),
        ("no songs in the encore split", (models, "1", demo_root, "auto", "encore", demo_store.path)),
    ]
    for message, arguments in wrong:
        with pytest.raises(UserError, match=message) as error:
            resolve_evaluation(*arguments)
        assert "\n" not in str(error.value)


# The report

NAMES = (
    "Plain - Song",
    "A$AP $ong - $\\frac{1$",
    "Pipe | Dream - a|b",
    "Zoë, Café - “Où?” 歌 ♫",
    "*Bold* _name_ `code` <b>",
)


def target_of(folder: Path, *, seen: Sequence[str] = ()) -> Target:
    model = ModelVersion(folder / "models" / "0001", 1, {"data": {"train": list(seen), "valid": []}})
    dataset_folder = folder / "songs"
    for name in NAMES:
        for stem in ("vocals", "accompaniment"):
            path = dataset_folder / "test" / name / f"{stem}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    dataset = open_dataset(dataset_folder, "folder")
    return Target(model, dataset, "test", tuple(dataset.split("test")))


def some_songs() -> list[SongScores]:
    frames = ([5.0, 6.0, 7.0], [1.0, NAN, 2.0], [NAN, NAN, NAN], [-3.0, INF], [0.0])
    return [made_up(name, values) for name, values in zip(NAMES, frames, strict=True)]


def test_summary_file_has_its_schema_in_strict_json(tmp_path: Path) -> None:
    songs = some_songs()
    returned = write_report(made(tmp_path / "reports" / "one"), target_of(tmp_path), songs, {})
    text = (tmp_path / "reports" / "one" / "summary.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    summary = json.loads(text)
    assert summary == returned
    assert list(summary["rows"]) == list(ROWS)
    for row in ROWS:
        assert list(summary["rows"][row]) == list(SOURCES)
        for source in SOURCES:
            assert list(summary["rows"][row][source]) == list(METRICS)
            for figures in summary["rows"][row][source].values():
                assert list(figures) == ["median", "mean"]
                assert all(isinstance(value, float) for value in figures.values())
    assert summary["rows"] == summarize(songs)
    assert summary["songs"] == 5
    assert summary["split"] == "test"


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_table_of_songs_parses_back_to_the_medians(tmp_path: Path) -> None:
    songs = some_songs()
    write_report(made(tmp_path / "reports" / "one"), target_of(tmp_path), songs, {})
    with (tmp_path / "reports" / "one" / "tracks.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(songs) * len(ROWS) * len(SOURCES) * len(METRICS)
    by_name = {song.name: song for song in songs}
    assert {line["name"] for line in lines} == set(NAMES)
    for line in lines:
        song = by_name[line["name"]]
        values = song.rows[line["row"]][line["source"]][line["metric"]]
        assert line["track"] == song.track_id
        assert int(line["frames"]) == len(values)
        assert int(line["frames_counted"]) == sum(map(math.isfinite, values))
        median = song.median(line["row"], line["source"], line["metric"])
        if math.isnan(median):
            assert line["median_db"] == ""
        else:
            assert float(line["median_db"]) == pytest.approx(median, abs=1e-5)


def table_cells(line: str) -> list[str]:
    """Cells of one line of a markdown table, escaped pipes resolved."""
    cells, text = [""], line.strip().removeprefix("|").removesuffix("|")
    position = 0
    while position < len(text):
        if text.startswith("\\|", position):
            cells[-1] += "|"
            position += 2
        elif text[position] == "|":
            cells.append("")
            position += 1
        else:
            cells[-1] += text[position]
            position += 1
    return [cell.strip() for cell in cells]


def test_readable_report_lists_songs_best_first_and_warns_of_failed_and_of_trained_ones(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    failures = {"Lost | Tape": "Lost | Tape.wav: no such file"}
    target = target_of(tmp_path, seen=[NAMES[0], "Never Evaluated"])
    write_report(folder, target, some_songs(), failures)
    text = (folder / "report.md").read_text(encoding="utf-8")
    songs = text.split("## Songs")[1].splitlines()
    rows = [table_cells(line) for line in songs if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    # Medians 6, 1.5, 0 and -3, then the song without any.
    assert [row[0] for row in rows[2:]] == [NAMES[0], NAMES[1], NAMES[4], NAMES[3], NAMES[2]]
    assert rows[2][1:] == ["6.00", "-4.00", "16.00", "6.00"]
    assert rows[-1][1:] == ["-", "-", "-", "-"]
    assert "Warning" in text
    (warning,) = [line for line in text.splitlines() if "Warning" in line]
    assert NAMES[0] in warning
    assert "Never Evaluated" not in warning
    assert "- Lost | Tape: Lost | Tape.wav: no such file" in text
    assert "nan" not in text.lower()
    for picture in ("songs.png", "over_time.png"):
        assert f"({picture})" in text


def test_report_without_failed_or_trained_songs_has_no_warning(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    write_report(folder, target_of(tmp_path), some_songs(), {})
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "Warning" not in text
    assert "Failed" not in text


def check_picture(path: Path) -> None:
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels: Array = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 100
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 3


def test_pictures_are_drawn_for_any_names(tmp_path: Path) -> None:
    folder = made(tmp_path / "reports" / "one")
    write_report(folder, target_of(tmp_path), some_songs(), {})
    for picture in ("songs.png", "over_time.png"):
        check_picture(folder / picture)


def test_report_of_no_scored_song_is_written_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, songs in enumerate(([], [made_up("Silent", [NAN, NAN])])):
        folder = made(tmp_path / "reports" / str(number))
        failures = dict.fromkeys(NAMES, "cannot be read")
        summary = write_report(folder, target_of(tmp_path), songs, failures)
        assert summary["rows"]["model"]["vocals"]["SDR"] == {"median": None, "mean": None}
        assert read_json(folder / "summary.json")["failed"] == failures
        for picture in ("songs.png", "over_time.png"):
            assert (folder / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        print_summary(summary["rows"])
    assert "nan" not in capsys.readouterr().out.lower()


def test_latest_points_to_the_newest_report_and_moves_with_the_folder_of_reports(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = made(tmp_path / "reports" / name)
        write_report(folder, target_of(tmp_path), some_songs(), {})
        latest = tmp_path / "reports" / "latest"
        assert latest.is_symlink()
        assert latest.resolve() == folder.resolve()
        assert read_json(latest / "summary.json")["songs"] == 5
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == ["latest", "one", "two"]
    (tmp_path / "reports").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest" / "summary.json").is_file()


def test_report_folder_is_new_each_time_and_named_after_the_model(tmp_path: Path) -> None:
    model = ModelVersion(tmp_path / "models" / "0012", 12, {})
    outside = ModelVersion(tmp_path / "my model", None, {})
    folders = [report_folder(tmp_path / "reports", each) for each in (model, model, outside)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() and not list(folder.iterdir()) for folder in folders)
    assert "model0012" in folders[0].name
    assert "my model" in folders[2].name
