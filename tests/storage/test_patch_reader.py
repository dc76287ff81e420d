import multiprocessing
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.patch_reader import PatchReader
from storage.store import SpectrogramStore
from tests.tracks import new_store, write_track

BINS = 512
Array = NDArray[Any]

# Every way in which an array can be on disk: written by us, or by zarr alone with these options.
OURS = {
    "plain float16": {"dtype": "float16"},
    "plain float32": {"dtype": "float32"},
    "zstd": {"dtype": "float16", "compression": "zstd"},
    "blosc": {"dtype": "float32", "compression": "blosc"},
}
THEIRS: dict[str, dict[str, Any]] = {
    "zarr's order": {"dtype": "float16", "compressors": None, "config": {"write_empty_chunks": True}},
    "zarr's order, empty chunks left out": {"dtype": "float32", "compressors": None},
    "zarr's compression": {"dtype": "float16"},
}
KINDS = (*OURS, *THEIRS)
SHAPES = ((2, 300), (1, 300), (2, 128), (1, 5), (2, 1000), (1, 129))


def spectrogram(seed: int, channels: int, frames: int, dtype: str, bins: int = 24) -> Array:
    """Magnitudes of music's range, zeros and float16's smallest numbers included."""
    random = np.random.default_rng(seed)
    values = 10 ** random.uniform(-8, 4, (channels, frames, bins))
    values[random.random(values.shape) < 0.1] = 0
    if frames >= 256:
        values[:, 128:256] = 0
    return values.astype(dtype)


def add_track(
    store: SpectrogramStore, track_id: str, arrays: dict[str, Array], compression: Any = "none"
) -> TrackRecord:
    track = write_track(store.path, track_id, arrays=arrays, compression=compression)
    store.add(track)
    return track


def rewrite_with_zarr(store: SpectrogramStore, track: TrackRecord, options: dict[str, Any]) -> TrackRecord:
    """The same track with arrays that zarr alone wrote."""
    records = {}
    for name, record in track.arrays.items():
        folder = store.path / track.split / track.id / name
        values = np.array(store.array(track, name))
        array = zarr.create_array(
            store=folder,
            shape=values.shape,
            chunks=(1, 128, values.shape[2]),
            shards=(values.shape[0], -(-values.shape[1] // 128) * 128, values.shape[2]),
            fill_value=0,
            overwrite=True,
            **options,
        )
        array[...] = values
        content = (store.path / record.shard).read_bytes()
        changes = {"bytes": len(content), "crc32c": google_crc32c.value(content), "metadata_crc32c": None}
        records[name] = record.model_copy(update=changes)
    changed = track.model_copy(update={"arrays": records})
    store.add(changed)
    return changed


def make_store(path: Path, kind: str) -> SpectrogramStore:
    store = new_store(path)
    dtype = (OURS | THEIRS)[kind]["dtype"]
    for number, (channels, frames) in enumerate(SHAPES):
        arrays = {
            name: spectrogram(100 * number + index, channels, frames, dtype) for index, name in enumerate(SPECTROGRAMS)
        }
        track = add_track(store, f"t-{number}", arrays, OURS.get(kind, {}).get("compression", "none"))
        if kind in THEIRS:
            rewrite_with_zarr(store, track, THEIRS[kind])
    store.save()
    return SpectrogramStore.open(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SpectrogramStore]:
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: make_store(folder / f"{number}.zarr", kind) for number, kind in enumerate(KINDS)}


@pytest.fixture(scope="module")
def readers(stores: dict[str, SpectrogramStore]) -> dict[str, PatchReader]:
    return {kind: PatchReader(store) for kind, store in stores.items()}


_whole: dict[tuple[str, Any], Array] = {}


def stock(store: SpectrogramStore, track: TrackRecord, source: str) -> Array:
    """A whole spectrogram as plain zarr reads it."""
    key = (str(store.path), (track.id, source, track.arrays[source].crc32c))
    if key not in _whole:
        _whole[key] = np.asarray(zarr.open_array(store.path / track.split / track.id / source, mode="r")[...])
    return _whole[key]


def padded_slice(whole: Array, channel: int, start: int, frames: int, dtype: str = "float32") -> Array:
    expected = np.zeros((frames, whole.shape[2]), dtype)
    part = whole[channel, start : start + frames]
    expected[: len(part)] = part
    return expected


def read(
    reader: PatchReader, track: TrackRecord, source: str, channel: int, start: int, frames: int, dtype: str = "float32"
) -> Array:
    # NaN shows what was not written.
    out = np.full((frames, track.arrays[source].shape[2]), np.nan, dtype)
    reader.read(track, source, channel, start, out)
    return out


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_patch_equals_the_slice_of_stock_zarr_padded_with_zeros(
    stores: dict[str, SpectrogramStore], readers: dict[str, PatchReader], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    track = data.draw(st.sampled_from(stores[kind].tracks("train")))
    source = data.draw(st.sampled_from(SPECTROGRAMS))
    channel = data.draw(st.integers(0, track.channels - 1))
    frames = data.draw(st.sampled_from([1, 127, 128, 129, 400]))
    last = max(0, track.frames - frames)
    start = data.draw(st.sampled_from([0, last, track.frames - 1]) | st.integers(0, track.frames - 1))
    dtype = track.arrays[source].dtype
    found = read(readers[kind], track, source, channel, start, frames, dtype)
    expected = padded_slice(stock(stores[kind], track, source), channel, start, frames, dtype)
    assert found.dtype == dtype
    assert found.tobytes() == expected.tobytes()


def test_demo_songs_read_right_and_are_not_silent_so_that_equality_means_something(
    demo_store: SpectrogramStore,
) -> None:
    reader = PatchReader(demo_store)
    for track in demo_store.manifest.tracks.values():
        for source in SPECTROGRAMS:
            whole = stock(demo_store, track, source)
            assert np.count_nonzero(whole) > 0.9 * whole.size
            np.testing.assert_array_equal(read(reader, track, source, 1, 60, 128), padded_slice(whole, 1, 60, 128))


def test_out_may_be_one_channel_of_a_batch_or_every_other_row(demo_store: SpectrogramStore) -> None:
    batch = np.full((3, 2, 128, BINS), np.nan, np.float32)
    track = demo_store.tracks("train")[0]
    reader = PatchReader(demo_store)
    expected = padded_slice(stock(demo_store, track, "vocals"), 1, 7, 128)
    reader.read(track, "vocals", 1, 7, batch[1, 1])
    np.testing.assert_array_equal(batch[1, 1], expected)
    assert np.isnan(batch[[0, 2]]).all()
    assert np.isnan(batch[1, 0]).all()
    reader.read(track, "vocals", 1, 7, batch[2, 0, ::2, ::-1])
    np.testing.assert_array_equal(batch[2, 0, ::2, ::-1], expected[:64])
    assert np.isnan(batch[2, 0, 1::2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_place_outside_the_track_is_an_index_error(
    stores: dict[str, SpectrogramStore], readers: dict[str, PatchReader], kind: str
) -> None:
    track = stores[kind].tracks("train")[0]
    for start in (-1, -track.frames, track.frames, track.frames + 1000):
        with pytest.raises(IndexError, match=track.id):
            read(readers[kind], track, "vocals", 0, start, 128)
    for channel in (-1, track.channels):
        with pytest.raises(IndexError, match=track.id):
            read(readers[kind], track, "vocals", channel, 0, 128)


def test_shard_that_was_lost_or_resized_since_the_store_was_opened_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "plain float16")
    first, second = store.tracks("train")[:2]
    (store.path / first.arrays["vocals"].shard).unlink()
    (store.path / second.arrays["vocals"].shard).write_bytes(b"short")
    for track in (first, second):
        with pytest.raises(UserError, match=track.arrays["vocals"].shard):
            read(PatchReader(store), track, "vocals", 0, 0, 128)


def test_track_that_was_made_again_is_read_anew_by_the_same_reader(tmp_path: Path) -> None:
    for number, compression in enumerate(("none", "zstd")):
        store = new_store(tmp_path / f"{number}.zarr")
        reader = PatchReader(store)
        for seed, frames in ((1, 200), (2, 200), (3, 90)):
            track = add_track(store, "t", {"mixture": spectrogram(seed, 1, frames, "float16")}, compression)
            expected = padded_slice(spectrogram(seed, 1, frames, "float16"), 0, 50, 128)
            np.testing.assert_array_equal(read(reader, track, "mixture", 0, 50, 128), expected)


@pytest.mark.parametrize("kind", ["plain float16", "zstd"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_that_was_used_works_in_child_processes(
    stores: dict[str, SpectrogramStore], kind: str, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    store = stores[kind]
    reader = PatchReader(store)
    tracks = store.tracks("train")
    for track in tracks:
        read(reader, track, "mixture", 0, 3, 128)
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(read, [(reader, track, "mixture", 0, 3, 128) for track in tracks])
    for found, track in zip(results, tracks, strict=True):
        np.testing.assert_array_equal(found, padded_slice(stock(store, track, "mixture"), 0, 3, 128))


@pytest.mark.parametrize("kind", ["plain float16", "zstd"])
def test_threads_share_a_reader(stores: dict[str, SpectrogramStore], kind: str) -> None:
    store = stores[kind]
    reader = PatchReader(store)
    tracks = store.tracks("train")
    for track in tracks:
        for source in SPECTROGRAMS:
            stock(store, track, source)

    def work(seed: int) -> int:
        random = np.random.default_rng(seed)
        for _ in range(1000 if kind.startswith("plain") else 50):
            track, source = tracks[random.integers(len(tracks))], SPECTROGRAMS[random.integers(3)]
            start = int(random.integers(track.frames))
            found = read(reader, track, source, 0, start, 128)
            np.testing.assert_array_equal(found, padded_slice(stock(store, track, source), 0, start, 128))
        return seed

    switch = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == list(range(8))
    finally:
        sys.setswitchinterval(switch)


ADD_TRACKS = """
import sys
from pathlib import Path
import numpy as np
from storage.manifest import SPECTROGRAMS
from tests.tracks import new_store, write_track
store = new_store(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    arrays = {name: np.full((1, 200, 24), number + 1, np.float16) for name in SPECTROGRAMS}
    store.add(write_track(store.path, f"new-{number}", arrays=arrays))
    store.save()
"""


def test_store_is_read_right_while_another_process_adds_tracks(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", "plain float16")
    tracks, reader = store.tracks("train"), PatchReader(store)
    writer = subprocess.Popen([sys.executable, "-c", ADD_TRACKS, str(store.path), "30"])
    opened, random = 0, np.random.default_rng(0)
    while writer.poll() is None:
        track = tracks[random.integers(len(tracks))]
        start = int(random.integers(track.frames))
        expected = padded_slice(stock(store, track, "vocals"), 0, start, 128)
        np.testing.assert_array_equal(read(reader, track, "vocals", 0, start, 128), expected)
        again = SpectrogramStore.open(store.path)
        opened += 1
        for added in again.tracks("train")[:-6]:
            assert (read(PatchReader(again), added, "mixture", 0, 0, 200) == int(added.id[4:]) + 1).all()
    assert writer.returncode == 0
    assert opened > 3
    assert len(SpectrogramStore.open(store.path).tracks("train")) == 36


def test_more_shards_than_file_descriptors_are_read(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    tracks = [
        add_track(store, f"t-{number}", {"mixture": np.full((1, 3, 24), number + 1, np.float16)})
        for number in range(400)
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(path.name) for path in Path("/dev/fd").iterdir()) + 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * in_use + 20, hard))
        reader = PatchReader(store)
        for _ in range(2):
            for number, track in enumerate(tracks):
                assert (read(reader, track, "mixture", 0, 0, 3) == number + 1).all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
