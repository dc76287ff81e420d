"""A disk that is full when training writes checkpoint, pictures, numbers or the model."""

from pathlib import Path

import pytest

from storage.registry import ModelRegistry
from storage.store import SpectrogramStore
from tests.disk import fill, small_disk
from tests.helpers import one_line
from tests.vocsep.training.training_runs import quick, small_store
from vocsep.training.fit import TrainResult, fit

ROOM, STEPS = 16 << 20, 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    return small_store(tmp_path_factory.mktemp("store") / "s.zarr", ("train", "train", "valid"))


def run(store: SpectrogramStore, disk: Path) -> TrainResult | None:
    return fit(quick(shown_songs=1), store, ModelRegistry(disk / "models"), disk / "runs")


# Room for the picture, for that and the log, and for all but the model.
@pytest.mark.parametrize("kilobytes", [120, 300, 430])
def test_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    store: SpectrogramStore, tmp_path: Path, kilobytes: int
) -> None:
    with small_disk(tmp_path / "disk", ROOM) as disk:
        (disk / "room").write_bytes(bytes(kilobytes << 10))
        fill(disk / "filler")
        (disk / "room").unlink()
        one_line(lambda: run(store, disk), disk, "disk full")
        (disk / "filler").unlink()
        result = run(store, disk)
        assert result is not None
        assert result.steps == STEPS
        registry = ModelRegistry(disk / "models")
        assert registry.versions() == [1]
        registry.open("1").verify()
        assert not [path for path in disk.rglob(".*") if path.name != ".lock"]
