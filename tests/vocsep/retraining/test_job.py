"""A retraining's job: begun once, resumed, and not mistaken for another."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import UserError
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.retraining.challengers import CONFIG, SPLITS, add_model, scores
from tests.vocsep.training.training_runs import small_store
from vocsep.datasets.songs import Dataset
from vocsep.evaluation.score_files import read_scores, save_scores
from vocsep.retraining.changes import changes_since_last, check_loss, song_digests
from vocsep.retraining.decision import Decision
from vocsep.retraining.job import Report, all_jobs, open_job, trained_model
from vocsep.retraining.report import finish, nothing_to_do_markdown, retraining_markdown
from vocsep.training.description import training_digest
from vocsep.training.songs import ExtraStore, song_pool


@pytest.fixture(scope="module")
def budget_store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    """Not to be changed."""
    return small_store(tmp_path_factory.mktemp("budgets") / "s.zarr", SPLITS)


def test_job_is_begun_once_gone_on_with_and_not_begun_again_when_nothing_changed(tmp_path: Path) -> None:
    store, registry, jobs = small_store(tmp_path / "s.zarr", SPLITS), ModelRegistry(tmp_path / "models"), tmp_path / "j"
    job = open_job(jobs, store, registry, CONFIG, "scratch", False)
    assert job is not None
    same = open_job(jobs, store, registry, CONFIG, "scratch", True)
    assert same is not None
    assert same.folder == job.folder
    job.challenger = add_model(registry, store).version
    job.write()
    again = open_job(jobs, store, registry, CONFIG, "scratch", False)
    assert again is not None
    assert (again.folder, again.challenger) == (job.folder, 1)
    finish(job, song_digests(store.manifest), "done")
    assert open_job(jobs, store, registry, CONFIG, "scratch", False) is None
    other = CONFIG.model_copy(update={"width": 3})
    assert open_job(jobs, store, registry, other, "scratch", False) is not None
    forced = open_job(jobs, store, registry, CONFIG, "scratch", True)
    assert forced is not None
    assert forced.folder != job.folder
    assert forced.challenger is None


@pytest.mark.parametrize(
    ("held", "wanted", "is_another"),
    [
        ({"steps": 30}, {"max_minutes": 60}, True),
        ({"steps": 30}, {"steps": 31}, True),
        ({"steps": 30}, {"steps": 30}, False),
        ({"steps": 30}, {"steps": 29}, False),
        ({"steps": 30}, {"steps": 30, "max_minutes": 1}, False),
        ({"steps": 30, "max_minutes": 1}, {"steps": 30}, True),
        ({"max_minutes": 5}, {}, True),
        ({"max_minutes": 5, "steps_done": 1600}, {}, False),
        ({"max_minutes": 15}, {}, False),
        ({}, {}, False),
        ({}, {"steps": 1600}, True),
        ({}, {"max_minutes": 5}, True),
        ({"epochs": 200}, {"epochs": 300}, True),
        ({"epochs": 3}, {"epochs": 3}, False),
        ({"max_minutes": 60, "steps_done": 900}, {"steps": 900}, False),
        ({"max_minutes": 60, "steps_done": 900}, {"steps": 1000}, True),
        ({"steps": 900, "seconds": 130.0}, {"max_minutes": 2}, False),
        ({"steps": 900, "seconds": 130.0}, {"max_minutes": 3}, True),
    ],
)
def test_larger_budget_is_another_training(
    held: dict[str, Any], wanted: dict[str, Any], is_another: bool, budget_store: SpectrogramStore, tmp_path: Path
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    without = CONFIG.model_copy(update={"steps": None})
    trained = without.model_dump(mode="json") | {"steps_done": 1, "seconds": 1.0} | held
    data = {"digest": training_digest(budget_store), "train": [], "valid": []}
    spectrogram = {"channels": 1}
    registry.add({"w": np.ones(3, np.float32)}, {"data": data, "training": trained, "spectrogram": spectrogram})
    config = without.model_copy(update=wanted)
    job = open_job(tmp_path / "jobs", budget_store, registry, config, "scratch", False)
    assert (job is not None) is is_another
    found = trained_model(budget_store, registry, config)
    assert (found is None) is is_another
    if found is not None:
        text = nothing_to_do_markdown(found, {"Song 7": "broken"})
        assert "model 1 was trained on these very training songs" in text
        assert " new" not in text
        assert "- Song 7: broken" in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"digest": 1, "start": "scratch", "training": {}, "finished": true}',
        b'{"digest": "d", "start": "elsewhere", "training": {}, "finished": true}',
        b'{"digest": "d", "start": "scratch", "training": [], "finished": true}',
        b'{"digest": "d", "start": "scratch", "training": {}, "finished": true, "songs": [1]}',
        b'{"digest": "d", "start": "scratch", "training": {}, "finished": false, "decision": {"challenger": "x"}}',
        None,
    ],
)
def test_damaged_job_is_named_and_keeps_no_other_from_its_work(
    content: bytes | None, budget_store: SpectrogramStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "jobs" / "20260101-000000" / "job.json"
    damaged.parent.mkdir(parents=True)
    damaged.mkdir() if content is None else damaged.write_bytes(content)
    assert str(changes_since_last(tmp_path / "jobs", song_digests(budget_store.manifest))) == "4 new"
    registry = ModelRegistry(tmp_path / "models")
    job = open_job(tmp_path / "jobs", budget_store, registry, CONFIG, "scratch", False)
    assert job is not None
    finish(job, song_digests(budget_store.manifest), "done")
    assert str(changes_since_last(tmp_path / "jobs", song_digests(budget_store.manifest))) == "no song changed"
    (line,) = caplog.messages
    assert line.startswith(f"{damaged}: damaged")
    assert "\n" not in line


@pytest.mark.parametrize("place", ["data", "spectrogram", "training"])
def test_model_from_elsewhere_that_says_other_things_does_not_keep_from_retraining(
    place: str, budget_store: SpectrogramStore, tmp_path: Path
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    training = CONFIG.model_dump(mode="json") | {"steps_done": 1, "seconds": 1.0}
    said = {"data": {"digest": training_digest(budget_store)}, "spectrogram": {"channels": 1}, "training": training}
    others: tuple[Any, ...] = (None, [], "x", {}, {"steps": [], "channels": "x", "digest": {}})
    for strange in others:
        registry.add({"w": np.ones(3, np.float32)}, said | {place: strange})
    assert open_job(tmp_path / "jobs", budget_store, registry, CONFIG, "scratch", False) is not None


def test_no_flipped_bit_of_a_job_names_another_model_or_decision(
    budget_store: SpectrogramStore, tmp_path: Path
) -> None:
    job = open_job(tmp_path, budget_store, ModelRegistry(tmp_path / "models"), CONFIG, "scratch", False)
    assert job is not None
    job.challenger, job.finished, job.songs = 3, True, {"Song 1": "train 0123abcd"}
    job.write()
    path = job.folder / "job.json"
    content = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(content), 7):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            (held,) = all_jobs(tmp_path)
            assert held == job
        except ValueError:
            refused += 1
    assert refused > len(content) / 2


@pytest.mark.parametrize("damage", ["never there", "deleted", "damaged"])
def test_job_whose_model_is_gone_trains_it_again(
    damage: str, budget_store: SpectrogramStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, jobs = ModelRegistry(tmp_path / "models"), tmp_path / "jobs"
    job = open_job(jobs, budget_store, registry, CONFIG, "scratch", False)
    assert job is not None
    version = 999 if damage == "never there" else add_model(registry).version
    job.decision = Decision(version or 0, None, promote=True, reason="better")
    job.challenger, job.report = version, Report(champion=None, folder=str(tmp_path))
    job.write()
    folder = registry.path / "0001"
    if damage == "deleted":
        shutil.rmtree(folder)
    elif damage == "damaged":
        (folder / "model.safetensors").write_bytes(b"damaged")
    for _ in range(2):
        again = open_job(jobs, budget_store, registry, CONFIG, "scratch", False)
        assert again is not None
        assert (again.folder, again.challenger, again.decision) == (job.folder, None, None)
    (line,) = caplog.messages
    assert line.startswith(f"{job.folder}: its model {version}")
    # What was decided of that model is not said of the next one.
    assert again is not None
    again.challenger = add_model(registry).version
    assert again.report_folder(tmp_path / "reports", None).parent == tmp_path / "reports"


def test_report_that_a_job_names_elsewhere_is_not_used(budget_store: SpectrogramStore, tmp_path: Path) -> None:
    reports, registry = tmp_path / "reports", ModelRegistry(tmp_path / "models")
    job = open_job(tmp_path / "jobs", budget_store, registry, CONFIG, "scratch", False)
    assert job is not None
    job.challenger = 1
    own = job.report_folder(reports, None)
    assert job.report_folder(reports, None) == own
    for elsewhere in (tmp_path, reports / "..", reports, tmp_path / "jobs" / "x"):
        elsewhere.mkdir(parents=True, exist_ok=True)
        job.report = Report(champion=None, folder=str(elsewhere))
        assert job.report_folder(reports, None).parent == reports


def test_job_of_other_songs_is_another_job(tmp_path: Path) -> None:
    registry, jobs = ModelRegistry(tmp_path / "models"), tmp_path / "jobs"
    folders = set()
    for number in (0, 1):
        store = small_store(tmp_path / f"{number}.zarr", SPLITS, seed=number)
        job = open_job(jobs, store, registry, CONFIG, "scratch", False)
        assert job is not None
        folders.add(job.folder)
    assert len(folders) == 2


def test_other_songs_in_a_further_store_are_another_training_and_the_same_ones_are_not(tmp_path: Path) -> None:
    store, jobs = small_store(tmp_path / "s.zarr", SPLITS), tmp_path / "jobs"
    registry = ModelRegistry(tmp_path / "models")
    configs = []
    for number in (1, 2):
        small_store(tmp_path / f"more-{number}.zarr", ("train",), seed=number, names=[f"More {number}"])
        configs.append(CONFIG.model_copy(update={"extra": (ExtraStore(store=tmp_path / f"more-{number}.zarr"),)}))
    pool = song_pool(configs[0].extra, store)
    description = {
        "data": {"digest": training_digest(store, pool), "train": [], "valid": []},
        "training": configs[0].model_dump(mode="json"),
        "spectrogram": {"channels": 1},
    }
    registry.add({"w": np.ones(3, np.float32)}, description)
    assert open_job(jobs, store, registry, configs[0], "scratch", False) is None
    assert open_job(jobs, store, registry, configs[1], "scratch", False) is not None
    # The same place, other songs in it.
    shutil.rmtree(tmp_path / "more-1.zarr")
    small_store(tmp_path / "more-1.zarr", ("train",), seed=9, names=["More 9"])
    assert open_job(jobs, store, registry, configs[0], "scratch", False) is not None


def test_fine_tuning_begins_with_the_champion_there_was_at_the_beginning(
    tmp_path: Path, registry: ModelRegistry
) -> None:
    store, jobs = small_store(tmp_path / "s.zarr", SPLITS), tmp_path / "jobs"
    for _ in range(2):
        job = open_job(jobs, store, registry, CONFIG, "champion", False)
        assert job is not None
        assert job.training.fine_tune == "1"
        registry.promote(2)
    assert open_job(jobs, store, ModelRegistry(tmp_path / "none"), CONFIG, "scratch", False) is not None


def test_changes_are_new_changed_and_removed_songs_since_the_last_finished_job(tmp_path: Path) -> None:
    store, registry = small_store(tmp_path / "s.zarr", SPLITS), ModelRegistry(tmp_path / "models")
    songs = song_digests(store.manifest)
    assert str(changes_since_last(tmp_path / "jobs", songs)) == "4 new"
    job = open_job(tmp_path / "jobs", store, registry, CONFIG, "scratch", False)
    assert job is not None
    assert str(changes_since_last(tmp_path / "jobs", songs)) == "4 new"
    finish(job, songs, "done")
    assert str(changes_since_last(tmp_path / "jobs", songs)) == "no song changed"
    other = {**songs, "Song 2": "other", "Song 9": "new"}
    del other["Song 1"]
    changes = changes_since_last(tmp_path / "jobs", other)
    assert (changes.new, changes.changed, changes.removed) == (("Song 9",), ("Song 2",), ("Song 1",))
    assert str(changes) == "1 new, 1 changed, 1 removed"
    job.decision = Decision(2, 1, promote=True, reason="better")
    text = retraining_markdown(changes, job, {"Song 7": "broken"}, [])
    assert "Removed: Song 1" in text
    assert "- Song 7: broken" in text


def test_dataset_of_which_most_songs_vanished_is_refused(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s.zarr", SPLITS)
    check_loss(store.manifest, Dataset("folder", tmp_path, (), {"Song 1": "broken", "Song 2": "", "Song 3": ""}))
    with pytest.raises(UserError, match=r"3 of 4 songs are gone.*--prune"):
        check_loss(store.manifest, Dataset("folder", tmp_path, (), {"Song 1": "broken"}))


def test_scores_come_back_from_their_files(tmp_path: Path) -> None:
    song = scores("Zoë", 1.25, math.inf)
    save_scores(tmp_path, song)
    (read,) = read_scores(tmp_path).values()
    assert (read.track_id, read.name, read.seconds) == (song.track_id, song.name, song.seconds)
    np.testing.assert_array_equal(read.rows["model"]["vocals"]["SDR"], [1.25, math.nan])
    assert read.rows["champion"]["vocals"]["SDR"][0] == math.inf
    assert read_scores(tmp_path / "none") == {}
