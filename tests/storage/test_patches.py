import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage import patches
from storage.manifest import TrackRecord
from storage.patches import PatchReader
from storage.store import SPECTROGRAMS, SpectrogramStore
from storage.track_writer import write_track

BINS = 512
Floats = NDArray[np.float32]
Stock = Callable[[TrackRecord, str], Floats]


@pytest.fixture(scope="module")
def stock(demo_store: SpectrogramStore) -> Stock:
    """Whole spectrograms of the demo store as plain zarr reads them."""
    loaded: dict[tuple[str, str], Floats] = {}

    def load(track: TrackRecord, source: str) -> Floats:
        if (track.id, source) not in loaded:
            array = zarr.open_array(demo_store.path / track.split / track.id / source, mode="r")
            loaded[track.id, source] = np.asarray(array[...]).astype(np.float32)
        return loaded[track.id, source]

    return load


@pytest.fixture(scope="module")
def reader(demo_store: SpectrogramStore) -> PatchReader:
    return PatchReader(demo_store)


def padded_slice(whole: Floats, channel: int, start: int, frames: int) -> Floats:
    expected = np.zeros((frames, whole.shape[2]), np.float32)
    part = whole[channel, start : start + frames]
    expected[: len(part)] = part
    return expected


def read(reader: PatchReader, track: TrackRecord, source: str, channel: int, start: int, frames: int) -> Floats:
    # NaN shows what was not written.
    out = np.full((frames, BINS), np.nan, np.float32)
    reader.read(track, source, channel, start, out)
    return out


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_patch_equals_the_slice_of_stock_zarr_padded_with_zeros(
    demo_store: SpectrogramStore, reader: PatchReader, stock: Stock, data: st.DataObject
) -> None:
    track = data.draw(st.sampled_from(sorted(demo_store.manifest.tracks.values(), key=lambda track: track.id)))
    source = data.draw(st.sampled_from(SPECTROGRAMS))
    channel = data.draw(st.integers(0, track.channels - 1))
    frames = data.draw(st.sampled_from([1, 127, 128, 129, 400]))
    last = max(0, track.frames - frames)
    start = data.draw(st.sampled_from([0, last, track.frames - 1]) | st.integers(0, track.frames - 1))
    found = read(reader, track, source, channel, start, frames)
    np.testing.assert_array_equal(found, padded_slice(stock(track, source), channel, start, frames))


def test_demo_songs_are_not_silent_so_that_equality_means_something(demo_store: SpectrogramStore, stock: Stock) -> None:
    for track in demo_store.manifest.tracks.values():
        for source in SPECTROGRAMS:
            assert np.count_nonzero(stock(track, source)) > 0.9 * stock(track, source).size


def test_out_may_be_one_channel_of_a_batch(demo_store: SpectrogramStore, reader: PatchReader, stock: Stock) -> None:
    batch = np.full((3, 2, 128, BINS), np.nan, np.float32)
    track = demo_store.tracks("train")[0]
    reader.read(track, "vocals", 1, 7, batch[1, 1])
    np.testing.assert_array_equal(batch[1, 1], padded_slice(stock(track, "vocals"), 1, 7, 128))
    assert np.isnan(batch[[0, 2]]).all()
    assert np.isnan(batch[1, 0]).all()


@pytest.mark.parametrize("frames", [1, 2, 127])
def test_track_shorter_than_a_patch_is_followed_by_zeros(tmp_path: Path, frames: int) -> None:
    store = SpectrogramStore.open_or_create(tmp_path / "s.zarr", config={}, dataset={}, tool="test")
    arrays: dict[str, NDArray[Any]] = {
        name: np.random.default_rng(frames).random((1, frames, BINS)).astype(np.float16) for name in SPECTROGRAMS
    }
    track = write_track(store.path, "t", name="t", split="train", seconds=1.0, arrays=arrays, sources=())
    found = read(PatchReader(store), track, "vocals", 0, frames - 1, 128)
    np.testing.assert_array_equal(found, padded_slice(arrays["vocals"].astype(np.float32), 0, frames - 1, 128))


def test_start_outside_the_track_is_an_index_error(demo_store: SpectrogramStore, reader: PatchReader) -> None:
    track = demo_store.tracks("train")[0]
    for start in (-1, -track.frames, track.frames, track.frames + 1000):
        with pytest.raises(IndexError, match=track.id):
            read(reader, track, "vocals", 0, start, 128)


def test_channel_that_the_track_lacks_is_an_index_error(demo_store: SpectrogramStore, reader: PatchReader) -> None:
    track = demo_store.tracks("train")[0]
    with pytest.raises(IndexError):
        read(reader, track, "vocals", track.channels, 0, 128)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts the maps that Linux lists")
def test_number_of_maps_stays_below_the_bound_and_values_stay_right(
    copy_of_demo_store: Callable[[], SpectrogramStore], stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy_of_demo_store()
    bound = 3
    monkeypatch.setattr(patches, "MAXIMUM_OPEN_MAPS", bound)
    reader = PatchReader(store)
    tracks = sorted(store.manifest.tracks.values(), key=lambda track: track.id)
    most = 0
    generator = np.random.default_rng(0)
    for _ in range(200):
        track = tracks[generator.integers(len(tracks))]
        source = SPECTROGRAMS[generator.integers(3)]
        start = int(generator.integers(track.frames))
        found = read(reader, track, source, 0, start, 16)
        np.testing.assert_array_equal(found, padded_slice(stock(track, source), 0, start, 16))
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        most = max(most, len({line.split()[-1] for line in maps.splitlines() if str(store.path) in line}))
    assert most == bound


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_with_open_maps_works_in_a_child_process(
    demo_store: SpectrogramStore, stock: Stock, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    reader = PatchReader(demo_store)
    tracks = demo_store.tracks("train")
    read(reader, tracks[0], "mixture", 0, 0, 128)
    expected = [padded_slice(stock(track, "mixture"), 1, 50, 128) for track in tracks]
    with multiprocessing.get_context(method).Pool(2) as pool:
        # `eval` is a function that a spawned process can import.
        code = "[reader.read(track, 'mixture', 1, 50, out), out][1]"
        names = [{"reader": reader, "track": track, "out": np.empty((128, BINS), np.float32)} for track in tracks]
        found = pool.starmap(eval, [(code, name) for name in names])
    np.testing.assert_array_equal(found, expected)
