"""Systems side by side: what is trained, that nothing finished is done again, and what the report says of it."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.errors import UserError
from storage.files import read_json, write_json
from storage.store import SpectrogramStore
from tests.helpers import one_line
from tests.vocsep.training.training_runs import ALL_BINS, Child, small_store
from vocsep.comparison.config import ComparisonConfig
from vocsep.comparison.effects import Effect, Scores, problem_effects
from vocsep.comparison.objectives import PROBLEMS, ladder, notebook_with, objective_with, objectives, project_without
from vocsep.comparison.reference_lines import reference_lines
from vocsep.comparison.report import write_comparison
from vocsep.comparison.runs import Point, Run, RunResult, folder_of, load_result, run_comparison, runs
from vocsep.models.objective_config import Objective
from vocsep.training.config import TrainConfig
from vocsep.training.settings_files import load_settings, system_names
from vocsep.training.validation import validate

SPLITS = ("train", "train", "valid")
FIELDS = {
    "domain": {"input"},
    "bins": {"bins"},
    "loss and target": {"loss", "target"},
    "log normalization": {"input"},
    "initial bias": {"bias"},
}


def tiny(**changed: Any) -> ComparisonConfig:
    settings = {"systems": ("notebook", "project"), "ladder": False, "seeds": 1, "steps": 2, "batch_size": 2}
    return ComparisonConfig.model_validate(settings | {"width": 1, "validations": 1} | changed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return small_store(tmp_path_factory.mktemp("songs") / "songs.zarr", SPLITS, spectrogram=ALL_BINS)


def system(name: str) -> Objective:
    return TrainConfig.model_validate(load_settings(name)).objective


def differing(first: Objective, second: Objective) -> set[str]:
    return {name for name in Objective.model_fields if getattr(first, name) != getattr(second, name)}


# What is compared


def test_all_problems_make_the_project_and_none_the_notebook() -> None:
    assert objective_with(frozenset(PROBLEMS)) == system("project")
    assert objective_with(frozenset()) == system("notebook")


def test_ladder_goes_from_project_to_notebook_one_problem_at_a_time() -> None:
    rungs = list(ladder().values())
    assert rungs[0] == system("project")
    assert rungs[-1] == system("notebook")
    assert [differing(first, second) for first, second in itertools.pairwise(rungs)] == [
        FIELDS[name] for name in PROBLEMS
    ]


def test_each_problem_alone_differs_in_its_own_fields() -> None:
    for problem in PROBLEMS:
        assert differing(project_without(problem), system("project")) == FIELDS[problem]
        assert differing(notebook_with(problem), system("notebook")) == FIELDS[problem]


def test_what_two_tables_share_is_trained_once() -> None:
    chosen = objectives(ComparisonConfig())
    assert len(set(chosen.values())) == len(chosen) == 17
    assert set(system_names()) <= chosen.keys()
    assert notebook_with("initial bias") == system("solution-1")


def test_runs_differ_in_nothing_but_objective_and_seed() -> None:
    settings = [run.config.model_dump(exclude={"objective", "seed"}) for run in runs(ComparisonConfig())]
    assert len(settings) == 51
    assert all(one == settings[0] for one in settings)


# Training them


def test_finished_runs_are_never_done_again(store: SpectrogramStore, tmp_path: Path) -> None:
    shares: list[float] = []
    first = run_comparison(tiny(), store, tmp_path, lambda done, total: shares.append(done / total))
    assert [result.name for result in first] == ["notebook, seed 0", "project, seed 0"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run_comparison(tiny(), store, tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times
    more = run_comparison(tiny(seeds=2), store, tmp_path)
    assert more[:2] == first
    assert len(more) == 4


def test_results_hold_what_the_curves_need(store: SpectrogramStore, tmp_path: Path) -> None:
    config = tiny(steps=4, validations=2)
    for result, run in zip(run_comparison(config, store, tmp_path), runs(config), strict=True):
        assert result.objective == run.config.objective
        assert [point.step for point in result.history] == [2, 4]
        assert result.floor_db == pytest.approx(validate(store, None).sdr_db)
        assert 0 < result.constant_loss < result.start_loss
        assert all(np.isfinite(point.valid_sdr_db) and point.train_loss > 0 for point in result.history)


def test_checkpoints_of_finished_runs_are_gone_and_their_models_stay(store: SpectrogramStore, tmp_path: Path) -> None:
    run_comparison(tiny(systems=("notebook",)), store, tmp_path)
    assert not list(tmp_path.rglob("checkpoints"))
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1


def test_killed_comparison_goes_on_to_the_results_of_one_that_was_left_alone(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    config = tiny(steps=40, validations=4)
    undisturbed = run_comparison(config, store, tmp_path / "undisturbed")
    output = tmp_path / "killed"
    child = Child(tmp_path / "child", _compare, store.path, output, 40, 4)
    child.wait_until(lambda: list(output.rglob("state.json")) or list(output.rglob("checkpoints/*")), "a checkpoint")
    child.kill()
    finished = run_comparison(config, store, output)
    for one, other in zip(undisturbed, finished, strict=True):
        assert one.model_copy(update={"seconds": other.seconds}) == other


def _compare(store: Path, output: Path, steps: int, validations: int) -> None:
    run_comparison(tiny(steps=steps, validations=validations), SpectrogramStore.open(store), output)


def test_run_that_fails_is_named_and_the_others_go_on(store: SpectrogramStore, tmp_path: Path) -> None:
    config = tiny(systems=("solution-3", "project"), learning_rate=1e30, steps=4)
    results = run_comparison(config, store, tmp_path)
    assert all("loss is" in (result.failed or "") for result in results)
    summary = write_comparison(tmp_path, config, store, results)
    assert len(summary["table"]) == 1
    assert "Runs that failed" in (tmp_path / "report.md").read_text()


def test_run_in_another_process_s_hands_is_left_to_it(store: SpectrogramStore, tmp_path: Path) -> None:
    child = Child(tmp_path / "child", _compare, store.path, tmp_path / "shared", 100_000, 1)
    config = tiny(steps=100_000)
    child.wait_until(lambda: list((tmp_path / "shared").rglob("metrics.csv")), "its first run")
    with pytest.raises(UserError, match="another process"):
        run_comparison(config.model_copy(update={"systems": ("notebook",)}), store, tmp_path / "shared")
    assert child.is_alive
    child.kill()


def test_store_without_all_bins_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    even = small_store(tmp_path / "even.zarr", SPLITS)
    with pytest.raises(UserError, match="bins"):
        run_comparison(tiny(), even, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What is said of it


def result(objective: Objective, seed: int, sdr: float) -> RunResult:
    history = [Point(step=10, valid_sdr_db=sdr, train_loss=0.5)]
    return RunResult(name="x", objective=objective, seed=seed, start_loss=2.0, constant_loss=1.0, history=history)


def test_effect_is_the_difference_seed_by_seed() -> None:
    first, second = system("project"), system("notebook")
    results = [result(first, 0, 1.0), result(first, 1, 2.0), result(second, 1, 5.0), result(second, 0, 3.0)]
    effect = Scores(results).effect(first, second)
    assert effect == Effect((2.0, 3.0))
    assert effect.mean == 2.5
    assert str(effect) == "+2.50 dB (+2.00 ... +3.00)"
    assert Scores(results).effect(first, project_without("bins")) is None


@pytest.mark.parametrize(
    ("per_seed", "matters"),
    [((1.0, 0.5, 2.0), True), ((-1.0, -0.5, -2.0), True), ((1.0, -0.1, 2.0), False), ((0.1, 0.2, 0.1), False)],
)
def test_effect_matters_if_all_seeds_agree_and_it_is_no_trifle(per_seed: tuple[float, ...], matters: bool) -> None:
    assert Effect(per_seed).matters is matters


def world(gain: Callable[[frozenset[str]], float]) -> Scores:
    """Runs of two seeds, whose SDR depends on the problems that they have."""
    subsets = [frozenset(PROBLEMS[number:]) for number in range(6)]
    subsets += [frozenset(PROBLEMS) - {problem} for problem in PROBLEMS] + [
        frozenset({problem}) for problem in PROBLEMS
    ]
    return Scores([result(objective_with(one), seed, gain(one) + seed) for one in subsets for seed in (0, 1)])


def test_problem_that_costs_everywhere_is_found_in_all_three_places_and_no_other() -> None:
    effects = problem_effects(world(lambda problems: -2.0 * ("domain" in problems)))
    assert {name: effect and effect.per_seed for name, effect in effects["domain"].items()} == {
        "solved alone in the project": (2.0, 2.0),
        "brought alone into the notebook": (-2.0, -2.0),
        "on the ladder": (2.0, 2.0),
    }
    others = [effect for name in PROBLEMS if name != "domain" for effect in effects[name].values()]
    assert all(effect is not None and effect.mean == 0 for effect in others)


def test_report_answers_every_claim_by_what_the_runs_say(store: SpectrogramStore, tmp_path: Path) -> None:
    config = tiny(ladder=True, steps=1, systems=tuple(system_names()))
    results = run_comparison(config, store, tmp_path)
    scripted = [
        one.model_copy(update={"history": [Point(step=1, train_loss=0.4, valid_sdr_db=score_of(one.objective))]})
        for one in results
    ]
    summary = write_comparison(tmp_path, config, store, scripted)
    answers = {answer.split("**")[1]: answer for answer in summary["answers"]}
    assert "It does here: +3.00 dB" in answers["Does the notebook beat the project?"]
    assert "Yes. " in answers["Domain: did it matter?"]
    assert "against the claim" in answers["Bins: did it matter?"]
    assert "of use, against the claim" in answers["Initial bias: did it matter?"]
    report = (tmp_path / "report.md").read_text()
    assert all(answer in report for answer in summary["answers"])
    assert all(name in report for name in system_names())
    for picture in ("curves.png", "problems.png", "spectrograms.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert read_json(tmp_path / "summary.json")["answers"] == summary["answers"]


def score_of(objective: Objective) -> float:
    """Logarithms cost 4 dB, and a bias gives 1."""
    return 5.0 - 4 * (objective.input in ("log", "log-unit")) + (objective.bias == -0.4)


# Lines


def test_lines_are_in_order_and_the_floor_is_the_mixture_s_score(store: SpectrogramStore) -> None:
    lines = reference_lines(tiny().training(Objective(), 0), store)
    assert lines["mixture"] == pytest.approx(validate(store, None).sdr_db, abs=1e-3)
    assert lines["mixture"] < lines["constant mask"] < lines["oracle mask"]


def test_result_of_a_run_that_was_never_begun_is_none(store: SpectrogramStore, tmp_path: Path) -> None:
    assert load_result(Run("x", tiny().training(Objective(), 0)), store, tmp_path) is None


def test_results_as_version_0_1_0_wrote_them_are_read_and_damaged_ones_are_one_line(
    store: SpectrogramStore, tmp_path: Path
) -> None:
    run = Run("x", tiny().training(Objective(), 0))
    path = folder_of(run, store, tmp_path) / "result.json"
    point = {"step": 10, "valid_sdr_db": 1.5, "train_loss": 0.5}
    begun = {"name": "y", "objective": Objective().model_dump(mode="json"), "seed": 0, "start_loss": 2.0}
    ended = {"history": [point], "floor_db": -3.0, "steps": 10, "seconds": 4.5, "failed": None}
    write_json(path, begun | {"constant_loss": 1.0} | ended)
    held = load_result(run, store, tmp_path)
    assert held is not None
    assert (held.name, held.sdr_db, held.loss, held.seconds, held.failed) == ("x", 1.5, 0.5, 4.5, None)
    write_json(path, begun | {"constant_loss": 1.0, "history": [], "failed": "step 3: loss is nan"})
    held = load_result(run, store, tmp_path)
    assert held is not None
    assert held.failed == "step 3: loss is nan"
    for damaged in (b"{", b"[]", b"null", b'{"history": 3}'):
        path.write_bytes(damaged)
        one_line(lambda: load_result(run, store, tmp_path), path)
