"""Fixtures for all tests: the demo songs, their store, and a MUSDB18 preview where there is one."""

import gc
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from storage.store import SpectrogramStore
from vocsep.demo.dataset import make_demo
from vocsep.preprocessing.step import PreprocessConfig, preprocess

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("vocsep", deadline=None)
hypothesis.settings.load_profile("vocsep")

# What takes longest comes first: at the end of a run in several processes, none is left alone with it.
_LONGEST = (
    "tests/flows/",
    "tests/test_guides.py",
    "tests/vocsep/doctor/",
    "tests/vocsep/training/test_processes.py",
    "tests/vocsep/models/test_export.py",
    "tests/test_wheel.py",
    "tests/vocsep/page/test_browser.py",
)
_PREVIEW_VARIABLES = ("VOCSEP_PREVIEW", "MUSDB_PATH")
_PREVIEW_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "musdb18-7"


class FilesAndFlows(LoadFileScheduling):  # type: ignore[misc]
    """Of several processes (`-n`), one takes a whole file, one all flows, and one what serves them: what their tests
    share is made once."""

    def _split_scope(self, nodeid: str) -> str:
        for folder in ("tests/flows/serving/", "tests/flows/"):
            if nodeid.startswith(folder):
                return folder
        return nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesAndFlows:
    """Files in the order of collection, not of their numbers of tests."""
    config.option.loadscopereorder = False
    return FilesAndFlows(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, and otherwise as they were."""
    items.sort(key=lambda item: [not item.nodeid.startswith(one) for one in _LONGEST])


@pytest.fixture(scope="module", autouse=True)
def _imported_is_no_garbage() -> None:
    """Trainings have Python look for garbage when they end; all that tests import need not be looked through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's dataset or cluster by accident, and programs are not deaf to SIGHUP under nohup."""
    for name in ("MUSDB_PATH", "DASK_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def preview_root() -> Path:
    """Folder of a MUSDB18 (preview) dataset; skips where there is none."""
    named = [Path(os.environ[name]) for name in _PREVIEW_VARIABLES if os.environ.get(name)]
    root = [*named, _PREVIEW_BESIDE][0]
    if not root.is_dir():
        pytest.skip(f"no MUSDB18 stems in {root}: set VOCSEP_PREVIEW to a MUSDB18 or preview folder")
    return root


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training songs and two test songs of 4 to 5 s, as MUSDB18 stems; not to be changed."""
    # Several processes (`-n`) have sibling folders, and the second that asks waits for the first.
    several = "PYTEST_XDIST_WORKER" in os.environ
    root = (tmp_path_factory.getbasetemp().parent if several else tmp_path_factory.mktemp("songs")) / "demo"
    make_demo(root, train_songs=4, test_songs=2, seconds=(4.0, 5.0), workers=1)
    return root


@pytest.fixture(scope="session")
def demo_store(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    """The store of all demo songs, preset `fine`; not to be changed: see `copy_of_demo_store`."""
    path = tmp_path_factory.mktemp("stores") / "demo.zarr"
    preprocess(PreprocessConfig(dataset=demo_root, store=path))
    return SpectrogramStore.open(path)


@pytest.fixture
def copy_of_demo_store(demo_store: SpectrogramStore, tmp_path: Path) -> Callable[[], SpectrogramStore]:
    """A function that makes copies of the demo store, to change or damage."""

    def copy() -> SpectrogramStore:
        number = len(list(tmp_path.glob("copy-*.zarr")))
        path = tmp_path / f"copy-{number}.zarr"
        shutil.copytree(demo_store.path, path)
        return SpectrogramStore.open(path)

    return copy
