from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from storage.errors import UserError
from storage.manifest import MANIFEST_NAME
from storage.remote.mirror import fetch
from storage.remote.store import RemoteStore
from storage.store import SpectrogramStore
from tests.helpers import tree
from tests.storage.remote.buckets import objects, one_line, s3_server, use
from vocsep.datasets.layouts import open_dataset
from vocsep.datasets.songs import Dataset
from vocsep.preprocessing.config import StoreConfig
from vocsep.preprocessing.remote import check_remote_store, preprocess_song_to, updating_remote
from vocsep.spectrograms.config import load_spectrogram_config

CONFIG = StoreConfig(spectrogram=load_spectrogram_config("fine"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as (address, _):
        yield address


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return f"{use(server, monkeypatch)}/demo.zarr"


def preprocess(url: str, dataset: Dataset, *, prune: bool = False) -> int:
    """How many songs were made."""
    with updating_remote(url, dataset, CONFIG, prune=prune) as (remote, work):
        for song in work.pending:
            remote.add(preprocess_song_to(song, url, CONFIG))
    return len(work.pending)


def without_manifest(content: dict[str, bytes]) -> dict[str, bytes]:
    return {key: value for key, value in content.items() if key != MANIFEST_NAME}


def test_workers_in_other_processes_make_the_store_that_a_local_run_makes(
    demo_root: Path, demo_store: SpectrogramStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    dataset = open_dataset(demo_root)
    with updating_remote(url, dataset, CONFIG) as (remote, work), ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for future in [pool.submit(preprocess_song_to, song, url, CONFIG) for song in work.pending]:
            remote.add(future.result())
    assert without_manifest(objects(url)) == without_manifest(tree(demo_store.path))
    assert RemoteStore.open(url).manifest.data_digest == demo_store.manifest.data_digest
    assert list(tmp_path.iterdir()) == []
    assert preprocess(url, dataset) == 0
    copy = SpectrogramStore.open(fetch(url, tmp_path / "cache", splits=("train", "valid")))
    assert len(copy.tracks("train")) == 3
    assert len(copy.tracks("valid")) == 1


def test_only_new_and_changed_songs_are_made_and_gone_ones_dropped_when_asked(
    demo_root: Path, url: str, tmp_path: Path
) -> None:
    whole = open_dataset(demo_root)
    few = replace(whole, songs=whole.songs[:2])
    assert preprocess(url, few) == 2
    before = RemoteStore.open(url)
    assert preprocess(url, replace(whole, songs=whole.songs[:3])) == 1
    assert preprocess(url, replace(whole, songs=whole.songs[1:3])) == 0
    assert len(RemoteStore.open(url).manifest.tracks) == 3
    assert preprocess(url, replace(whole, songs=whole.songs[1:3]), prune=True) == 0
    after = RemoteStore.open(url)
    assert sorted(after.manifest.tracks) == sorted(song.id for song in whole.songs[1:3])
    assert not any(whole.songs[0].id in key for key in objects(url))
    kept = whole.songs[1].id
    assert after.manifest.tracks[kept] == before.manifest.tracks[kept]
    assert after.problems() == []


def test_a_changed_song_leaves_the_manifest_before_it_is_made_again(demo_root: Path, url: str) -> None:
    whole = open_dataset(demo_root)
    dataset = replace(whole, songs=whole.songs[:2])
    preprocess(url, dataset)
    remote = RemoteStore.open(url)
    changed = whole.songs[0].id
    record = remote.manifest.tracks[changed]
    source = record.sources[0].model_copy(update={"sha256": "0" * 64, "bytes": 1})
    remote.add(record.model_copy(update={"sources": (source, *record.sources[1:])}))
    remote.save()
    with updating_remote(url, dataset, CONFIG) as (remote, work):
        assert [song.id for song in work.pending] == [changed]
        assert list(RemoteStore.open(url).manifest.tracks) == [whole.songs[1].id]
        remote.add(preprocess_song_to(work.pending[0], url, CONFIG))
    assert RemoteStore.open(url).manifest.tracks[changed] == record


def test_what_was_added_is_saved_when_the_body_fails(demo_root: Path, url: str) -> None:
    dataset = open_dataset(demo_root)

    def fail() -> None:
        with updating_remote(url, dataset, CONFIG) as (remote, work):
            remote.add(preprocess_song_to(work.pending[0], url, CONFIG))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(RemoteStore.open(url).manifest.tracks) == [dataset.songs[0].id]
    assert preprocess(url, replace(dataset, songs=dataset.songs[:2])) == 1


def test_a_song_that_cannot_be_read_is_named_and_nothing_is_uploaded(demo_root: Path, url: str) -> None:
    song = open_dataset(demo_root).songs[0]
    missing = replace(song, mixture=tuple(replace(part, path=Path("gone.mp4")) for part in song.mixture))
    with pytest.raises(UserError, match=r"gone\.mp4"):
        preprocess_song_to(missing, url, CONFIG)
    assert objects(url) == {}


def test_another_dataset_or_configuration_is_refused(demo_root: Path, url: str) -> None:
    dataset = open_dataset(demo_root)
    check_remote_store(url, dataset, CONFIG)
    few = replace(dataset, songs=dataset.songs[:1])
    preprocess(url, few)
    check_remote_store(url, dataset, CONFIG)
    before = objects(url)
    notebook = StoreConfig(spectrogram=load_spectrogram_config("notebook"))
    other = replace(dataset, kind="folder", root=Path("/elsewhere"))
    for action, parts in (
        (lambda: check_remote_store(url, dataset, notebook), ["another configuration", "11025 -> 8192"]),
        (lambda: check_remote_store(url, other, CONFIG), ["demo songs", str(demo_root), "/elsewhere"]),
    ):
        one_line(action, url, *parts)
    for changes in ({"dataset": dataset, "config": notebook}, {"dataset": other, "config": CONFIG}):
        with pytest.raises(UserError), updating_remote(url, **changes):  # type: ignore[arg-type]
            pass
    assert objects(url) == before
