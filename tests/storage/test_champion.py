"""The champion's history, rollback, and deleting old versions."""

import itertools
import json
from pathlib import Path

import pytest

from storage.errors import UserError
from storage.registry import CHAMPION_NAME, DESCRIPTION_NAME, WEIGHTS_NAME, ModelRegistry
from tests.helpers import go_on, line_of, one_line, start
from tests.storage.models import weights, with_models


def test_history_names_every_champion_and_why_and_a_rollback_goes_back_one_at_a_time(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    for version, why in ((1, "first"), (3, "better"), (3, "again"), (2, "by hand")):
        registry.promote(version, why)
    assert [(reign.version, reign.why) for reign in registry.history()] == [(1, "first"), (3, "better"), (2, "by hand")]
    assert registry.rollback() == (2, 3)
    assert ModelRegistry(registry.path).champion() == 3
    assert registry.rollback() == (3, 1)
    one_line(registry.rollback, registry.path, "promote")
    assert registry.champion() == 1


def test_no_flipped_bit_of_the_champion_file_names_another_version(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    for version in (1, 3, 2):
        registry.promote(version, "better")
    expected = registry.history()
    path = registry.path / CHAMPION_NAME
    content = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(content), 5):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert registry.history() == expected
        except UserError:
            refused += 1
    assert refused > len(content) / 2


def test_champion_file_of_an_earlier_version_is_read_and_gets_its_digest_when_it_is_written(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(1)
    registry.promote(2)
    path = registry.path / CHAMPION_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["digest"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert registry.rollback() == (2, 1)
    assert "digest" in json.loads(path.read_text(encoding="utf-8"))
    assert registry.champion() == 1


def test_rollback_passes_over_a_damaged_and_a_deleted_version(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 4)
    for version in (1, 2, 3, 4):
        registry.promote(version)
    (registry.path / "0003" / WEIGHTS_NAME).write_bytes(b"damaged")
    (registry.path / "0002").rename(tmp_path / "gone")
    assert registry.rollback() == (4, 1)


def test_damaged_version_is_not_promoted(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(1)
    (registry.path / "0002" / WEIGHTS_NAME).write_bytes(b"damaged")
    one_line(lambda: registry.promote(2), registry.path / "0002")
    assert registry.champion() == 1


def test_champion_is_replaced_only_if_it_is_the_one_that_was_compared_with(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(1, replacing=None)
    one_line(lambda: registry.promote(2, replacing=None), "champion is 1")
    one_line(lambda: registry.promote(2, replacing=3), "champion is 1")
    registry.promote(2, replacing=1)
    assert registry.champion() == 2


def test_promoting_by_hand_mends_a_damaged_champion_file(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    (registry.path / CHAMPION_NAME).write_text("{")
    one_line(lambda: registry.promote(1, replacing=None), registry.path / CHAMPION_NAME)
    registry.promote(2)
    assert registry.champion() == 2


@pytest.mark.parametrize("name", ["number", "weights_sha256", "description_sha256"])
def test_edited_description_is_refused_and_named(tmp_path: Path, name: str) -> None:
    registry = with_models(tmp_path)
    path = registry.path / "0002" / DESCRIPTION_NAME
    content = json.loads(path.read_text())
    content[name] = 7 if name == "number" else "0" * 64
    path.write_text(json.dumps(content))
    one_line(lambda: registry.open("2"), path, "edited")


def test_pruning_keeps_the_newest_the_champion_and_the_one_before_it(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 8)
    for version in (1, 2, 3):
        registry.promote(version)
    assert registry.prunable(keep=2) == [1, 4, 5, 6]
    assert registry.versions() == list(range(1, 9))
    assert registry.prune(keep=2) == [1, 4, 5, 6]
    assert registry.versions() == [2, 3, 7, 8]
    assert sorted(path.name for path in registry.path.iterdir() if not path.name.startswith(".")) == [
        *("0002", "0003", "0007", "0008", CHAMPION_NAME)
    ]
    assert not list(registry.path.glob(".deleted-*"))
    assert registry.rollback() == (3, 2)
    assert registry.add(weights(), {}).version == 9


def test_pruning_never_takes_the_newest_so_that_no_number_is_given_twice(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 2)
    assert registry.prune(keep=0) == [1]
    assert registry.add(weights(), {}).version == 3


def test_pruning_clears_what_killed_processes_left(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 1)
    for name in (".deleted-1", ".0002.0123"):
        (registry.path / name).mkdir()
        (registry.path / name / WEIGHTS_NAME).touch()
    registry.prune(keep=1)
    assert [path.name for path in registry.path.iterdir()] == ["0001"]


MOVE_CHAMPION = """
import sys
from pathlib import Path
from storage.errors import UserError
from storage.registry import ModelRegistry
registry = ModelRegistry(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
moved = 0
for _ in range(50):
    held = registry.champion()
    try:
        registry.promote(held % 5 + 1, replacing=held)
        moved += 1
    except UserError as error:
        assert "the champion is" in str(error), error
print(moved, flush=True)
"""


def test_of_two_processes_that_move_the_champion_none_undoes_the_other(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 5)
    registry.promote(1)
    movers = [start(MOVE_CHAMPION, registry.path) for _ in range(2)]
    assert {line_of(mover) for mover in movers} == {"ready"}
    go_on(*movers)
    moved = sum(int(mover.communicate(timeout=600)[0]) for mover in movers)
    # Each move is one step further: as many steps as were told of.
    assert registry.champion() == moved % 5 + 1
    reigns = [reign.version for reign in registry.history()]
    assert all(after == before % 5 + 1 for before, after in itertools.pairwise(reigns))
