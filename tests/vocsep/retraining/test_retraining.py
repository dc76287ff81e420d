"""What a retraining decides, and that killing it at any write leaves one whole champion and nothing to do twice."""

import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from tests.vocsep.training.training_runs import small_store
from vocsep.datasets.songs import Dataset
from vocsep.evaluation.score_files import read_scores, save_scores
from vocsep.evaluation.scores import SongScores
from vocsep.retraining.changes import changes_since_last, check_loss, song_digests
from vocsep.retraining.decision import Decision, apply, decide, still_holds
from vocsep.retraining.job import open_job, trained_model
from vocsep.retraining.report import finish, nothing_to_do_markdown, retraining_markdown
from vocsep.training.config import TrainConfig
from vocsep.training.description import training_digest
from vocsep.training.songs import ExtraStore, song_pool

CONFIG = TrainConfig(steps=3, width=2, channels=1)
SPLITS = ("train", "train", "valid", "test")


def scores(name: str, new: float, old: float | None) -> SongScores:
    """A song with one counted frame, and one that is silent."""
    rows = {"model": new} | ({} if old is None else {"champion": old})
    frames = {row: {"vocals": {"SDR": [value, math.nan]}} for row, value in rows.items()}
    return SongScores(f"id-{name}", name, 2.0, frames, {})


def add_model(registry: ModelRegistry, store: SpectrogramStore | None = None, **data: Any) -> ModelVersion:
    content = {"digest": training_digest(store) if store else "d", "train": [], "valid": []} | data
    description = {"data": content, "training": CONFIG.model_dump(mode="json"), "spectrogram": {"channels": 1}}
    return registry.add({"w": np.ones(3, np.float32)}, description)


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Two models, the first of which is the champion."""
    registry = ModelRegistry(tmp_path / "models")
    add_model(registry)
    add_model(registry)
    registry.promote(1)
    return registry


def decision_on(registry: ModelRegistry, pairs: list[tuple[float, float]], confidence: float = 0.95) -> Decision:
    songs = [scores(f"Song {number}", new, old) for number, (new, old) in enumerate(pairs)]
    return decide(registry.open("2"), registry.open("1"), songs, confidence)


# The decision


def test_challenger_that_is_better_on_all_songs_is_promoted(registry: ModelRegistry) -> None:
    decision = decision_on(registry, [(5.1, 5.0), (3.3, 3.1), (-1.0, -1.3), (9.2, 9.0)])
    assert decision.promote
    assert (decision.challenger, decision.champion, decision.songs, decision.better) == (2, 1, 4, 4)
    assert decision.mean_db == pytest.approx(0.2)
    assert decision.least_db is not None
    assert 0 < decision.least_db < 0.2


def test_challenger_that_is_equal_worse_or_not_surely_better_is_not_promoted(registry: ModelRegistry) -> None:
    equal = [(5.0, 5.0)] * 10
    worse = [(4.0, 5.0), (4.1, 5.0), (4.2, 5.0)]
    unsure = [(6.0, 5.0), (4.3, 5.0), (5.6, 5.0), (4.8, 5.0)]
    one = [(9.0, 5.0)]
    for pairs in (equal, worse, unsure, one, []):
        decision = decision_on(registry, pairs)
        assert not decision.promote, pairs
        assert decision.champion == 1
        apply(decision, registry)
        assert registry.champion() == 1


def test_higher_confidence_asks_for_more(registry: ModelRegistry) -> None:
    pairs = [(5.3, 5.0), (5.1, 5.0), (5.4, 5.0), (5.1, 5.0), (5.2, 5.0)]
    assert decision_on(registry, pairs, 0.95).promote
    assert not decision_on(registry, pairs, 0.999).promote


def test_songs_without_a_score_of_both_do_not_count(registry: ModelRegistry) -> None:
    decision = decision_on(registry, [(math.nan, 1.0), (1.0, math.nan), (5.1, 5.0), (5.2, 5.0)])
    assert decision.songs == 2


def test_songs_that_a_model_was_trained_on_do_not_count(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    champion = add_model(registry, train=["Song 0"], valid=["Song 1"])
    challenger = add_model(registry, train=["Song 2"])
    songs = [scores(f"Song {number}", 5.0 + number, 9.0) for number in range(6)]
    decision = decide(challenger, champion, songs, 0.95)
    assert decision.songs == 3
    assert decision.mean_db == pytest.approx((8 + 9 + 10) / 3 - 9)
    assert "3 test songs do not count" in decision.reason


def test_without_a_champion_the_challenger_is_promoted(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    decision = decide(add_model(registry), None, [scores("Song", -5.0, None)], 0.95)
    apply(decision, registry)
    assert registry.champion() == 1
    assert "no champion" in registry.history()[-1].why


def test_decision_about_another_champion_is_not_carried_out(registry: ModelRegistry) -> None:
    decision = decision_on(registry, [(5.1, 5.0), (3.2, 3.1), (4.3, 4.1)])
    assert decision.promote
    assert still_holds(decision, registry)
    add_model(registry)
    registry.promote(3)
    assert not still_holds(decision, registry)
    with pytest.raises(UserError, match="champion is 3"):
        apply(decision, registry)
    assert registry.champion() == 3


# The job


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
    job.write(challenger=add_model(registry, store).version)
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
        ({"max_minutes": 5, "steps_done": 450}, {}, False),
        ({"max_minutes": 15}, {}, False),
        ({}, {}, False),
        ({}, {"steps": 450}, True),
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


@pytest.mark.parametrize("damage", ["never there", "deleted", "damaged"])
def test_job_whose_model_is_gone_trains_it_again(
    damage: str, budget_store: SpectrogramStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, jobs = ModelRegistry(tmp_path / "models"), tmp_path / "jobs"
    job = open_job(jobs, budget_store, registry, CONFIG, "scratch", False)
    assert job is not None
    version = 999 if damage == "never there" else add_model(registry).version
    decision = Decision(version or 0, None, promote=True, reason="better")
    report = {"champion": None, "folder": str(tmp_path)}
    job.write(challenger=version, report=report, decision=asdict(decision))
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
    again.write(challenger=add_model(registry).version)
    assert again.report_folder(tmp_path / "reports", None).parent == tmp_path / "reports"


def test_report_that_a_job_names_elsewhere_is_not_used(budget_store: SpectrogramStore, tmp_path: Path) -> None:
    reports, registry = tmp_path / "reports", ModelRegistry(tmp_path / "models")
    job = open_job(tmp_path / "jobs", budget_store, registry, CONFIG, "scratch", False)
    assert job is not None
    job.write(challenger=1)
    own = job.report_folder(reports, None)
    assert job.report_folder(reports, None) == own
    for elsewhere in (tmp_path, reports / "..", reports, tmp_path / "jobs" / "x"):
        elsewhere.mkdir(parents=True, exist_ok=True)
        job.write(report={"champion": None, "folder": str(elsewhere)})
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
    decided = Decision(2, 1, promote=True, reason="better")
    job.write(decision=asdict(decided))
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


# Killed at any write


def decide_and_finish(folder: Path) -> None:
    """The last stages of a retraining, from scores to the closed job."""
    registry, store = ModelRegistry(folder / "models"), SpectrogramStore.open(folder / "s.zarr")
    job = open_job(folder / "jobs", store, registry, CONFIG, "scratch", False)
    if job is None:
        return
    if job.challenger is None:
        trained = 2 in registry.versions()
        job.write(challenger=2 if trained else add_model(registry, store).version)
    if not still_holds(job.decision, registry):
        report = job.report_folder(folder / "reports", registry.champion())
        for number, (new, old) in enumerate([(5.1, 5.0), (3.3, 3.1), (-1.0, -1.3)]):
            if f"id-{number}" not in read_scores(report):
                save_scores(report, scores(f"{number}", new, old))
        songs = list(read_scores(report).values())
        job.write(decision=asdict(decide(registry.open("2"), registry.open("1"), songs, 0.95)))
    assert job.decision is not None
    apply(job.decision, registry)
    finish(job, song_digests(store.manifest), "done")


def killed_at(write: int, before: bool, folder: Path) -> None:
    """Be killed right before or right after the rename that puts the file of a write into its place."""
    replace: Callable[[Path, Path], Path] = Path.replace
    count = 0

    def counted(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if before and count == write:
            os.kill(os.getpid(), signal.SIGKILL)
        result = replace(self, target)
        if count == write:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = counted  # type: ignore[method-assign, assignment]
    decide_and_finish(folder)


def test_killed_before_or_after_any_write_it_goes_on_and_there_is_always_one_whole_champion(tmp_path: Path) -> None:
    store = small_store(tmp_path / "s.zarr", SPLITS)
    context = multiprocessing.get_context("fork")
    kills = champions_seen = 0
    for write in range(1, 30):
        for before in (True, False):
            folder = tmp_path / f"{write}-{before}"
            folder.mkdir()
            (folder / "s.zarr").symlink_to(store.path)
            registry = ModelRegistry(folder / "models")
            add_model(registry)
            registry.promote(1)
            process = context.Process(target=killed_at, args=(write, before, folder))
            process.start()
            process.join()
            if process.exitcode == -signal.SIGKILL:
                kills += 1
            else:
                assert process.exitcode == 0
            champion = registry.champion()
            assert champion in (1, 2)
            registry.open().load_weights()
            champions_seen |= champion
            reports = {path: path.stat().st_mtime_ns for path in folder.glob("reports/*/scores/[!.]*.json")}
            decide_and_finish(folder)
            assert registry.champion() == 2
            assert [reign.version for reign in registry.history()] == [1, 2]
            assert registry.versions() == [1, 2]
            assert len(list(folder.glob("jobs/*/job.json"))) == 1
            assert len(list(folder.glob("reports/*/scores/[!.]*.json"))) == 3
            assert all(path.stat().st_mtime_ns == modified for path, modified in reports.items())
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert kills >= 2 * 8
    assert champions_seen == 3
