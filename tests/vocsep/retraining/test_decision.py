"""Which challenger becomes the champion, also when the process is killed."""

import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import UserError
from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.vocsep.retraining.challengers import CONFIG, SPLITS, add_model, scores
from tests.vocsep.training.training_runs import small_store
from vocsep.evaluation.score_files import read_scores, save_scores
from vocsep.retraining.changes import song_digests
from vocsep.retraining.decision import Decision, apply, decide, still_holds
from vocsep.retraining.job import open_job
from vocsep.retraining.report import finish


def decision_on(registry: ModelRegistry, pairs: list[tuple[float, float]], confidence: float = 0.95) -> Decision:
    songs = [scores(f"Song {number}", new, old) for number, (new, old) in enumerate(pairs)]
    return decide(registry.open("2"), registry.open("1"), songs, confidence)


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


def decide_and_finish(folder: Path) -> None:
    """The last stages of a retraining, from scores to the closed job."""
    registry, store = ModelRegistry(folder / "models"), SpectrogramStore.open(folder / "s.zarr")
    job = open_job(folder / "jobs", store, registry, CONFIG, "scratch", False)
    if job is None:
        return
    if job.challenger is None:
        trained = 2 in registry.versions()
        job.challenger = 2 if trained else add_model(registry, store).version
        job.write()
    if not still_holds(job.decision, registry):
        report = job.report_folder(folder / "reports", registry.champion())
        for number, (new, old) in enumerate([(5.1, 5.0), (3.3, 3.1), (-1.0, -1.3)]):
            if f"id-{number}" not in read_scores(report):
                save_scores(report, scores(f"{number}", new, old))
        songs = list(read_scores(report).values())
        job.decision = decide(registry.open("2"), registry.open("1"), songs, 0.95)
        job.write()
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
