import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from storage.store import SpectrogramStore
from tests.vocsep.training.training_runs import fit_in_child, small_store, train
from vocsep.training.log import COLUMNS, METRICS_NAME, TrainingLog, read_metrics

SETTINGS: dict[str, Any] = {"steps": 40, "validations": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    splits = ("train", "train", "valid", "valid", "valid")
    return small_store(tmp_path_factory.mktemp("log") / "store.zarr", splits)


@pytest.fixture(scope="module")
def undisturbed(store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of 40 steps, validated twice."""
    folder = tmp_path_factory.mktemp("undisturbed")
    child = fit_in_child(store, folder, "never", pictures=True, **SETTINGS)
    assert child.wait() == 0, child.messages
    (run,) = child.runs
    return run


@pytest.fixture(scope="module")
def killed(store: SpectrogramStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, killed after it had told of step 30, with its newest checkpoint at step 20, then resumed."""
    folder = tmp_path_factory.mktemp("killed")
    settings: dict[str, Any] = {"checkpoint_seconds": 1e6, "pictures": True, **SETTINGS}
    child = fit_in_child(store, folder, **settings)
    child.wait_until(lambda: child.runs and any(row["step"] == "30" for row in read_metrics(child.runs[0])), "step 30")
    child.kill()
    child = fit_in_child(store, folder, **settings)
    assert child.wait() == 0, child.messages
    assert "resuming after step 20" in child.messages
    (run,) = child.runs
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / METRICS_NAME).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def events(run: Path) -> Any:
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0, "audio": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def test_csv_has_the_promised_columns_and_a_row_every_ten_steps_and_per_validation(undisturbed: Path) -> None:
    header = (undisturbed / METRICS_NAME).read_text().splitlines()[0]
    assert tuple(header.split(",")) == COLUMNS
    found = [(int(row["step"]), bool(row["train/loss"]), bool(row["valid/sdr_db"])) for row in rows(undisturbed)]
    train_row, valid_row = (True, False), (False, True)
    assert found == [
        (10, *train_row),
        (20, *train_row),
        (20, *valid_row),
        (30, *train_row),
        (40, *train_row),
        (40, *valid_row),
    ]


def test_numbers_in_the_csv_are_what_they_are_called(undisturbed: Path) -> None:
    seconds = [float(row["seconds"]) for row in rows(undisturbed)]
    assert seconds == sorted(seconds)
    for row in rows(undisturbed):
        if not row["train/loss"]:
            continue
        assert 0 < float(row["train/loss"]) < 10
        assert 0 < float(row["train/gradient_norm"]) < 1e3
        assert 0 <= float(row["train/data_wait_share"]) <= 1
        assert 0 < float(row["train/patches_per_second"]) < 1e5
        used, warmup = int(row["step"]) / 40, 0.03
        expected = 2e-3 * (0.5 + 0.5 * np.cos(np.pi * (used - warmup) / (1 - warmup)))
        assert float(row["train/learning_rate"]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("run", ["undisturbed", "killed"])
def test_tensorboard_holds_the_same_numbers_as_the_csv(run: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(run)
    scalars = events(folder)
    assert set(scalars.Tags()["scalars"]) == {name for name in COLUMNS if "/" in name}
    for name in scalars.Tags()["scalars"]:
        expected = [(int(row["step"]), float(row[name])) for row in rows(folder) if row[name]]
        shown = [(event.step, event.value) for event in scalars.Scalars(name)]
        assert [step for step, _ in shown] == [step for step, _ in expected]
        np.testing.assert_allclose([value for _, value in shown], [value for _, value in expected], rtol=1e-5)


def test_run_that_was_killed_and_resumed_tells_every_step_once_and_as_the_undisturbed_one(
    killed: Path, undisturbed: Path
) -> None:
    changing = ("seconds", "train/patches_per_second", "train/data_wait_share")
    kept = [
        [{name: row[name] for name in COLUMNS if name not in changing} for row in rows(run)]
        for run in (killed, undisturbed)
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("run", ["undisturbed", "killed"])
def test_tensorboard_shows_and_plays_two_fixed_validation_songs(
    run: str, request: pytest.FixtureRequest, store: SpectrogramStore
) -> None:
    shown = events(request.getfixturevalue(run))
    songs = [track.name for track in store.tracks("valid")][:2]
    tags = shown.Tags()
    assert {name.split("/")[0] for name in tags["images"]} == set(songs)
    assert set(tags["audio"]) == {f"{song}/{kind}" for song in songs for kind in ("mixture", "true vocals", "estimate")}
    for song in songs:
        images = shown.Images(song)
        assert [image.step for image in images] == [20, 40]
        assert all(image.encoded_image_string.startswith(b"\x89PNG") for image in images)
        assert all(image.width >= 200 for image in images)
        for kind in ("mixture", "true vocals", "estimate"):
            clips = shown.Audio(f"{song}/{kind}")
            assert [clip.step for clip in clips] == [20, 40]
            assert all(clip.encoded_audio_string.startswith(b"RIFF") and clip.sample_rate == 1000 for clip in clips)
        truth, estimate = (
            shown.Audio(f"{song}/{kind}")[1].encoded_audio_string for kind in ("true vocals", "estimate")
        )
        assert truth != estimate


def test_pictures_are_files_too_one_per_song_and_validation(undisturbed: Path, store: SpectrogramStore) -> None:
    identities = [track.id for track in store.tracks("valid")][:2]
    expected = {f"{identity}-{step:08d}.png" for identity in identities for step in (20, 40)}
    assert {path.name for path in (undisturbed / "pictures").iterdir()} == expected


@pytest.mark.parametrize("streamed", ["host", "stream"])
def test_share_of_waiting_for_data_is_a_share(store: SpectrogramStore, tmp_path: Path, streamed: str) -> None:
    run = Path(train(store, tmp_path, steps=20, data=streamed).run_folder)
    shares = [float(row["train/data_wait_share"]) for row in rows(run) if row["train/data_wait_share"]]
    assert len(shares) == 2
    assert all(0 <= share <= 1 for share in shares)


# The log itself


def test_half_a_line_that_a_killed_process_left_is_not_read_and_goes(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0)
    log.write(10, 1.0, {"train/loss": 0.5})
    log.write(20, 2.0, {"train/loss": 0.25})
    log.close()
    path = tmp_path / METRICS_NAME
    path.write_text(path.read_text() + "30,3.0,0.1")
    assert [row["step"] for row in read_metrics(tmp_path)] == ["10", "20"]
    TrainingLog(tmp_path, 20).close()
    assert [row["step"] for row in rows(tmp_path)] == ["10", "20"]
    assert path.read_text().endswith("\n")


def test_rows_beyond_the_step_where_a_run_goes_on_are_dropped_and_those_before_stay(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0)
    for step in (10, 20, 30):
        log.write(step, step / 10, {"train/loss": 1 / step})
    log.close()
    again = TrainingLog(tmp_path, 20)
    again.write(30, 9.9, {"train/loss": 7.0})
    again.close()
    assert [(row["step"], row["train/loss"]) for row in rows(tmp_path)] == [("10", "0.1"), ("20", "0.05"), ("30", "7")]


def test_folder_without_metrics_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
