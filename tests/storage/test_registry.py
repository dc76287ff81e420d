"""The registry of models: numbers, names, weights, damage, killed writers."""

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from storage.files import file_digest
from storage.registry import CHAMPION_NAME, DESCRIPTION_NAME, WEIGHTS_NAME, ModelRegistry, ModelVersion
from tests.helpers import go_on, line_of, one_line, start
from tests.storage.models import ADD_MODELS, PROMOTE_FOR_EVER, weights, with_models


def test_versions_are_numbered_from_1_and_hold_two_files_each(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "new" / "models")
    assert registry.versions() == []
    assert registry.champion() is None
    assert [registry.add(weights(), {}).version for _ in range(12)] == list(range(1, 13))
    assert registry.versions() == list(range(1, 13))
    assert sorted(path.name for path in registry.path.iterdir()) == [f"{n:04}" for n in range(1, 13)]
    for folder in registry.path.iterdir():
        assert sorted(path.name for path in folder.iterdir()) == [DESCRIPTION_NAME, WEIGHTS_NAME]


def test_number_of_a_deleted_middle_version_is_not_given_again(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    (registry.path / "0002" / DESCRIPTION_NAME).unlink()
    (registry.path / "0002" / WEIGHTS_NAME).unlink()
    (registry.path / "0002").rmdir()
    assert registry.add(weights(), {}).version == 4


def test_version_numbers_go_on_beyond_four_digits(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 1)
    (registry.path / "0001").rename(registry.path / "9999")
    assert registry.add(weights(7), {}).version == 10_000
    assert registry.versions() == [9999, 10_000]
    assert registry.open("10000").load_weights()["layer.weight"][0, 0] == 7
    assert registry.open("latest").version == 10_000


arrays = st.sampled_from(["float16", "float32", "float64", "int64", "uint8", "bool"]).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, max_side=4))
)


@settings(max_examples=40, deadline=None)
@given(saved=st.dictionaries(st.text("abc.", min_size=1, max_size=6), arrays, max_size=4), transpose=st.booleans())
def test_weights_come_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, saved: dict[str, NDArray[Any]], transpose: bool
) -> None:
    registry = ModelRegistry(tmp_path_factory.getbasetemp() / "bits")
    saved = {name: array.T if transpose else array for name, array in saved.items()}
    loaded = registry.open(str(registry.add(saved, {}).version)).load_weights()
    assert sorted(loaded) == sorted(saved)
    for name, array in saved.items():
        assert (loaded[name].shape, loaded[name].dtype) == (array.shape, array.dtype)
        assert loaded[name].tobytes() == array.tobytes()


def test_description_comes_back_with_the_digest_of_the_weights(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path)
    description = {"architecture": {"channels": 16}, "name": "Zoë", "sdr": 5.25, "notes": None}
    added = registry.add(weights(), description)
    opened = registry.open("1")
    assert opened == added
    digest = file_digest(tmp_path / "0001" / WEIGHTS_NAME)
    assert opened.description == description | {"weights_sha256": digest}
    assert "weights_sha256" not in description


def test_model_is_named_by_champion_latest_number_or_path(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(2)
    names = {"champion": 2, "latest": 3, "1": 1, "0001": 1, "3": 3}
    assert {name: registry.open(name).version for name in names} == names
    assert registry.open().version == 2
    assert [registry.open(name).description["number"] for name in names] == list(names.values())
    by_path = registry.open(str(registry.path / "0003"))
    assert by_path.description["number"] == 3
    np.testing.assert_array_equal(by_path.load_weights()["layer.weight"], weights(3)["layer.weight"])


def test_new_version_leaves_the_champion_what_it_is(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 1)
    assert registry.champion() is None
    registry.promote(1)
    registry.add(weights(), {})
    assert registry.champion() == 1
    registry.promote(2)
    assert registry.champion() == 2
    assert ModelRegistry(registry.path).open().version == 2


@pytest.mark.parametrize("name", ["4", "0", "9" * 30, "nothing", "", "../models", "models/0007", "²", "-1"])
def test_unknown_name_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = with_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    one_line(lambda: registry.open(name), name)


def test_empty_registry_says_that_there_is_no_model_yet(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    for name in ("champion", "latest"):
        one_line(lambda name=name: registry.open(name), tmp_path / "models", "make train")  # type: ignore[misc]
    one_line(lambda: registry.open("1"), "1")
    assert not (tmp_path / "models").exists()


def test_promoting_an_unknown_version_is_refused_and_the_champion_stays(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(2)
    one_line(lambda: registry.promote(4), "4")
    assert registry.champion() == 2


@pytest.mark.parametrize("content", [b"", b"two", b"\xff\xfe", b"2 3"])
def test_damaged_champion_file_is_refused(tmp_path: Path, content: bytes) -> None:
    registry = with_models(tmp_path)
    (registry.path / CHAMPION_NAME).write_bytes(content)
    one_line(registry.open, registry.path / CHAMPION_NAME)


def test_registry_of_version_0_1_0_has_its_champion_and_history() -> None:
    registry = ModelRegistry(Path(__file__).parents[1] / "data" / "version-0.1.0" / "models")
    assert registry.champion() == 1
    assert registry.open().load_weights()
    assert [reign.version for reign in registry.history()] == [1]


def test_champion_whose_folder_is_gone_is_refused(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(2)
    (registry.path / "0002").rename(tmp_path / "gone")
    one_line(registry.open, "no such model")


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "of another model", "a folder"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    registry = with_models(tmp_path)
    path = registry.path / "0002" / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "flipped":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "of another model":
        path.write_bytes((registry.path / "0003" / WEIGHTS_NAME).read_bytes())
    elif damage == "a folder":
        path.mkdir()
    one_line(registry.open("2").load_weights, path)
    registry.open("1").load_weights()


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": 2}', b"[]", b"null", b"\xff\xfe\x00"])
def test_damaged_description_is_refused(tmp_path: Path, content: bytes) -> None:
    registry = with_models(tmp_path)
    path = registry.path / "0002" / DESCRIPTION_NAME
    path.write_bytes(content)
    one_line(lambda: registry.open("2").load_weights(), registry.path / "0002")
    assert registry.open("3").description["number"] == 3


class MakesFile:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def test_pickle_named_as_weights_is_refused_and_never_executed(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 1)
    mark = tmp_path / "executed"
    pickled = pickle.dumps(MakesFile(mark))
    pickle.loads(pickled)
    assert mark.exists()
    mark.unlink()
    path = registry.path / "0001" / WEIGHTS_NAME
    path.write_bytes(pickled)
    one_line(registry.open("1").load_weights, path)
    # Nor with a description that vouches for it.
    description = registry.path / "0001" / DESCRIPTION_NAME
    description.write_text(json.dumps({"weights_sha256": file_digest(path)}))
    one_line(registry.open("1").load_weights, path)
    assert not mark.exists()


def test_processes_that_add_at_once_never_share_or_lose_a_number(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    writers = [start(ADD_MODELS, registry.path, tag, 10, 100) for tag in range(5)]
    assert {line_of(writer) for writer in writers} == {"ready"}
    go_on(*writers)
    added: list[tuple[int, int]] = []
    for writer in writers:
        output, _ = writer.communicate(timeout=600)
        assert writer.returncode == 0
        pairs = [tuple(map(int, line.split())) for line in output.splitlines()]
        assert [version for version, _ in pairs] == sorted(version for version, _ in pairs)
        added += [(version, value) for version, value in pairs]
    assert sorted(version for version, _ in added) == list(range(1, 51)) == registry.versions()
    for version, value in added:
        model = registry.open(str(version))
        assert model.description["value"] == value
        assert (model.load_weights()["w"] == value).all()
    assert len(list(registry.path.iterdir())) == 50


def test_killed_writer_leaves_no_half_version_and_the_numbers_go_on(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    for tag, seconds in enumerate((0.0, 0.02, 0.05)):
        writer = start(ADD_MODELS, registry.path, tag, 10_000, 1_000_000)
        assert line_of(writer) == "ready"
        go_on(writer)
        assert line_of(writer)
        time.sleep(seconds)
        writer.kill()
        writer.communicate(timeout=600)
    versions = registry.versions()
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= 3
    for version in versions:
        model = registry.open(str(version))
        assert (model.load_weights()["w"] == model.description["value"]).all()
    assert registry.add(weights(), {}).version == len(versions) + 1


def test_version_is_whole_from_the_first_instant_it_is_seen(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    writer = start(ADD_MODELS, registry.path, 0, 25, 1_000_000)
    go_on(writer)
    seen: set[int] = set()
    while writer.poll() is None:
        for version in set(registry.versions()) - seen:
            assert registry.open(str(version)).load_weights()["w"].size == 1_000_000
            seen.add(version)
    writer.communicate(timeout=600)
    assert len(seen) > 5


def test_champion_can_be_read_at_every_instant_and_after_the_promoter_was_killed(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    registry.promote(1)
    promoter = start(PROMOTE_FOR_EVER, registry.path)
    try:
        assert line_of(promoter)
        seen = {registry.champion() for _ in range(2000)}
    finally:
        promoter.kill()
        promoter.communicate(timeout=600)
    assert seen <= {1, 2}
    assert registry.champion() in (1, 2)
    assert registry.open().load_weights().keys() == weights().keys()


def test_model_that_cannot_be_described_leaves_nothing(tmp_path: Path) -> None:
    registry = with_models(tmp_path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        registry.add(weights(), {"loss": float("nan")})
    assert [path.name for path in registry.path.iterdir()] == ["0001"]


def test_version_is_a_value(tmp_path: Path) -> None:
    registry = with_models(tmp_path)
    assert registry.open("2") == ModelVersion(registry.path / "0002", 2, registry.open("2").description)


@pytest.mark.parametrize("data", [None, [], "x", {"train": None}, {"train": "abc"}, {"train": [1, None]}])
def test_songs_that_are_no_names_are_one_line(tmp_path: Path, data: object) -> None:
    registry = ModelRegistry(tmp_path)
    path = registry.add({"w": np.ones(1, np.float32)}, {"data": data}).path
    one_line(lambda: registry.open("1").songs("train"), path, "data.train")
    registry.add({"w": np.ones(1, np.float32)}, {"data": {"train": ["A", "B"]}})
    assert (registry.open("2").songs("train"), registry.open("2").songs("valid")) == (["A", "B"], [])
