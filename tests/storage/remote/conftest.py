"""A bucket, and a local store to put there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.store import SpectrogramStore
from tests.storage.remote.buckets import TRACKS, add_track, local_store, s3_server, use


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with s3_server() as (address, _):
        yield address


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL in a separate, empty bucket."""
    return f"{use(server, monkeypatch)}/some/folder/songs.zarr"


@pytest.fixture
def local(tmp_path: Path) -> SpectrogramStore:
    """Three tracks of training, one of validation, one of testing."""
    store = local_store(tmp_path / "local.zarr", 3)
    add_track(store, "v-0", 10, "valid")
    add_track(store, "x-0", 11, "test")
    return store


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    """A store with enough tracks for a copy to take a while."""
    return local_store(tmp_path_factory.mktemp("many") / "many.zarr", TRACKS)
