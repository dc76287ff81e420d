import os
from pathlib import Path

from storage.files import write_json
from vocsep.retraining.changes import changes_since_last
from vocsep.retraining.pruning import prune_jobs, prune_reports, prune_runs
from vocsep.training.run_folder import open_run


def run_folder(runs: Path, name: str, age: float) -> Path:
    folder = runs / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000001.json").write_text("{}")
    (folder / "metrics.csv").write_text("step\n1\n")
    write_json(folder / "run.json", {"status": "finished", "config": {}, "data_digest": "d"})
    os.utime(folder / "run.json", (1e9 - age, 1e9 - age))
    return folder


def test_old_runs_lose_their_checkpoints_but_not_their_curves(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path, name, age) for name, age in (("b", 3), ("a", 2), ("retrain-1/x", 1), ("c", 0))]
    assert prune_runs(tmp_path, keep=2) == runs[:2]
    assert [(run / "checkpoints").exists() for run in runs] == [False, False, True, True]
    assert all((run / "metrics.csv").exists() and (run / "run.json").exists() for run in runs)
    assert prune_runs(tmp_path, keep=2) == []


def test_run_that_a_process_holds_keeps_its_checkpoints(tmp_path: Path) -> None:
    held = open_run(tmp_path, "never", {}, "d")
    held.write("running")
    (held.path / "checkpoints").mkdir()
    os.utime(held.path / "run.json", (1, 1))
    run_folder(tmp_path, "newer", 0)
    assert prune_runs(tmp_path, keep=1) == []
    held.close()
    assert prune_runs(tmp_path, keep=1) == [held.path]


def test_old_reports_go_but_not_the_latest_and_nothing_that_is_no_report(tmp_path: Path) -> None:
    names = ["20260101-000000-model0001", "20260102-000000-model0002", "20260103-000000-retrain-model0003"]
    for age, name in enumerate(reversed([*names, "mine"])):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "latest").symlink_to(names[0])
    assert prune_reports(tmp_path, keep=1) == [tmp_path / names[1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0], names[2], "latest", "mine"]
    assert prune_reports(tmp_path / "none", keep=1) == []


def test_old_jobs_go(tmp_path: Path) -> None:
    for name in ("20260101-000000", "20260102-000000", "20260103-000000"):
        write_json(tmp_path / name / "job.json", {})
    prune_jobs(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20260102-000000", "20260103-000000"]


def test_what_other_programs_keep_in_the_same_folders_stays(tmp_path: Path) -> None:
    run_folder(tmp_path, "mine", 0)
    others = [tmp_path / "other" / "checkpoints" / "epoch-1.pt", tmp_path / "nightly" / "notes.txt"]
    for number, file in enumerate(others):
        file.parent.mkdir(parents=True)
        file.write_text("theirs")
        for name, content in (("run.json", {"status": "done", "lr": 1}), ("job.json", {"steps": []})):
            write_json(tmp_path / file.relative_to(tmp_path).parts[0] / name, content)
            os.utime(tmp_path / file.relative_to(tmp_path).parts[0] / name, (number, number))
    (tmp_path / "20260101-000000-holiday.jpg").write_text("theirs")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert prune_runs(tmp_path, keep=0) == [tmp_path / "mine"]
    prune_jobs(tmp_path, keep=0)
    changes_since_last(tmp_path, {})
    prune_reports(tmp_path, keep=0)
    assert before - set(tmp_path.rglob("*")) == {tmp_path / "mine" / "checkpoints" / "step-00000001.json"}


def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    kept = elsewhere / "mine.txt"
    elsewhere.mkdir()
    kept.write_text("mine")
    write_json(elsewhere / "job.json", {})
    run_folder(tmp_path / "runs", "old", 2)
    checkpoints = tmp_path / "runs" / "linked" / "checkpoints"
    run_folder(tmp_path / "runs", "linked", 1)
    for file in checkpoints.iterdir():
        file.unlink()
    checkpoints.rmdir()
    checkpoints.symlink_to(elsewhere)
    run_folder(tmp_path / "runs", "new", 0)
    assert len(prune_runs(tmp_path / "runs", keep=1)) == 2
    jobs = tmp_path / "jobs"
    write_json(jobs / "20260102-000000" / "job.json", {})
    (jobs / "20260101-000000").symlink_to(elsewhere)
    prune_jobs(jobs, keep=1)
    assert [path.name for path in jobs.iterdir()] == ["20260102-000000"]
    assert not checkpoints.is_symlink()
    assert kept.read_text() == "mine"
