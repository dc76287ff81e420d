import multiprocessing
import resource
import subprocess
import sys
from collections.abc import Callable
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

from storage import patch_reader as patches
from storage.errors import UserError
from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.patch_reader import PatchReader
from storage.shards import ZarrShard
from storage.store import SpectrogramStore
from storage.track_writer import write_track

BINS = 512
Array = NDArray[Any]
needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what Linux says of a process")

# Every way in which an array can lie on the disk: written by us, or by zarr alone with these options.
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


def new_store(path: Path) -> SpectrogramStore:
    return SpectrogramStore.open_or_create(path, config={}, dataset={}, tool="test")


def add_track(
    store: SpectrogramStore, track_id: str, arrays: dict[str, Array], compression: str = "none"
) -> TrackRecord:
    track = write_track(
        store.path,
        track_id,
        name=track_id,
        split="train",
        seconds=1.0,
        arrays=arrays,
        sources=(),
        compression=compression,  # type: ignore[arg-type]
    )
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
        changes = {"bytes": len(content), "crc32c": google_crc32c.value(content)}
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
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of float32 beyond 65504 to float16
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
    dtype = data.draw(st.sampled_from(["float16", "float32"]))
    found = read(readers[kind], track, source, channel, start, frames, dtype)
    expected = padded_slice(stock(stores[kind], track, source), channel, start, frames, dtype)
    assert found.dtype == dtype
    assert found.tobytes() == expected.tobytes()


def test_uncompressed_shards_are_mapped_and_all_others_go_through_zarr(
    stores: dict[str, SpectrogramStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded = ZarrShard.__getitem__, [0]

    def counting(shard: ZarrShard, part: Any) -> Array:
        decoded[0] += 1
        return decode(shard, part)

    monkeypatch.setattr(ZarrShard, "__getitem__", counting)
    for kind, store in stores.items():
        decoded[0] = 0
        read(PatchReader(store), store.tracks("train")[0], "vocals", 1, 0, 5)
        assert decoded == [0 if kind.startswith("plain") else 1], kind


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_batches_of_any_sources_equal_single_reads_for_any_number_of_threads(
    stores: dict[str, SpectrogramStore], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    tracks = stores[kind].tracks("train")
    reader = PatchReader(stores[kind], threads=data.draw(st.integers(1, 4)))
    requests = []
    for _ in range(data.draw(st.integers(0, 20))):
        track = data.draw(st.sampled_from(tracks))
        requests.append(
            (track, data.draw(st.integers(0, track.channels - 1)), data.draw(st.integers(0, track.frames - 1)))
        )
    sources = data.draw(st.sets(st.sampled_from(SPECTROGRAMS)))
    dtype = data.draw(st.sampled_from(["float16", "float32"])) if kind != "blosc" else "float32"
    out = {source: np.full((len(requests), 130, 24), np.nan, dtype) for source in sources}
    reader.read_batch(requests, out)
    for source, found in out.items():
        for (track, channel, start), patch in zip(requests, found, strict=True):
            expected = padded_slice(stock(stores[kind], track, source), channel, start, 130, dtype)
            np.testing.assert_array_equal(patch, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_batch_may_go_to_scattered_buffers_and_its_errors_reach_the_caller(
    stores: dict[str, SpectrogramStore], threads: int
) -> None:
    store = stores["plain float16"]
    track, other = store.tracks("train")[0], store.tracks("train")[4]
    reader = PatchReader(store, threads)
    batch = np.full((4, 2, 128, 24), np.nan, np.float32)
    reader.read_batch([(track, 1, 7), (other, 0, 3)], {"vocals": [batch[3, 1], batch[0, 0]]})
    np.testing.assert_array_equal(batch[3, 1], padded_slice(stock(store, track, "vocals"), 1, 7, 128))
    np.testing.assert_array_equal(batch[0, 0], padded_slice(stock(store, other, "vocals"), 0, 3, 128))
    assert np.isnan(batch).sum() == 6 * 128 * 24
    for count in (1, 3):
        with pytest.raises(ValueError, match="zip"):
            reader.read_batch([(track, 0, 0)] * 2, {"vocals": np.empty((count, 128, 24), np.float32)})
    for place in range(20):
        requests = [(track, 0, 0)] * 20
        requests[place] = (track, 0, 300)
        with pytest.raises(IndexError, match=track.id):
            reader.read_batch(requests, {"vocals": np.empty((20, 128, 24), np.float32)})


def test_every_float16_number_becomes_the_same_float32_number(tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = bits.view(np.float16)
    store = new_store(tmp_path / "s.zarr")
    finite = numbers[np.isfinite(numbers) & ~np.signbit(numbers)]
    arrays = {
        "mixture": numbers.reshape(1, 128, 512),
        # Without negative numbers, infinity and NaN, as magnitudes are.
        "vocals": np.pad(finite, (0, -len(finite) % 512)).reshape(1, -1, 512),
    }
    for name, values in arrays.items():
        track = add_track(store, name, {"mixture": values})
        found = read(PatchReader(store), track, "mixture", 0, 0, values.shape[1])
        # IEEE 754: sign, exponent with offset 15, 10 bits of mantissa; exponent 0 has no leading one.
        pattern = values[0].view(np.uint16).astype(np.int64)
        exponent, mantissa = pattern >> 10 & 31, pattern & 1023
        normal = np.ldexp(1 + mantissa / 1024, exponent - 15)
        magnitude = np.where(exponent == 0, np.ldexp(mantissa / 1024, -14), normal)
        is_finite = exponent < 31
        np.testing.assert_array_equal(np.abs(found[is_finite]), magnitude[is_finite])
        np.testing.assert_array_equal(np.isinf(found), (exponent == 31) & (mantissa == 0))
        np.testing.assert_array_equal(np.isnan(found), (exponent == 31) & (mantissa != 0))
        np.testing.assert_array_equal(np.signbit(found[is_finite]), (pattern >> 15 == 1)[is_finite])


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


@needs_proc
def test_number_of_maps_stays_below_the_bound_and_values_stay_right(
    copy_of_demo_store: Callable[[], SpectrogramStore], monkeypatch: pytest.MonkeyPatch
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
        np.testing.assert_array_equal(found, padded_slice(stock(store, track, source), 0, start, 16))
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        most = max(most, len({line.split()[-1] for line in maps.splitlines() if str(store.path) in line}))
    assert most == bound


def test_decoded_chunks_are_kept_within_the_bound_and_the_least_recently_used_leave(
    stores: dict[str, SpectrogramStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = ZarrShard.__getitem__

    def counting(shard: ZarrShard, part: Any) -> Array:
        values = decode(shard, part)
        decoded.append(-(-values.shape[0] // 128))
        return values

    monkeypatch.setattr(ZarrShard, "__getitem__", counting)
    monkeypatch.setattr(patches, "MAXIMUM_CACHE_BYTES", 3 * 128 * 24 * 2 + 100)
    store = stores["zstd"]
    track = store.tracks("train")[4]
    reader = PatchReader(store)

    def chunks_decoded(chunk: int, frames: int = 100) -> int:
        decoded.clear()
        expected = padded_slice(stock(store, track, "vocals"), 0, 128 * chunk, frames)
        np.testing.assert_array_equal(read(reader, track, "vocals", 0, 128 * chunk, frames), expected)
        return sum(decoded)

    assert [chunks_decoded(chunk) for chunk in (0, 1, 2, 0, 1, 2)] == [1, 1, 1, 0, 0, 0]
    # 0 is used again, so that 1 makes room for 3.
    assert [chunks_decoded(chunk) for chunk in (0, 3, 2, 0, 1)] == [0, 1, 0, 0, 1]
    # 2 is there, 3 to 5 are decoded in one call and take its place.
    assert chunks_decoded(2, frames=512) == 3
    assert len(decoded) == 1
    assert [chunks_decoded(chunk) for chunk in (3, 4, 5, 2)] == [0, 0, 0, 1]
    monkeypatch.setattr(patches, "MAXIMUM_CACHE_BYTES", 0)
    assert [chunks_decoded(chunk) for chunk in (0, 0)] == [1, 1]


@pytest.mark.parametrize("kind", ["plain float16", "zstd"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_that_was_used_works_in_child_processes(
    stores: dict[str, SpectrogramStore], kind: str, method: str
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    store = stores[kind]
    reader = PatchReader(store, threads=2)
    tracks = store.tracks("train")
    requests = [(track, 0, 3) for track in tracks]
    shape = (len(tracks), 128, 24)
    reader.read_batch(requests, {"mixture": np.empty(shape, np.float32)})
    # `eval` is a function that a spawned process can import.
    code = "[reader.read_batch(requests, {'mixture': out}), out][1]"
    names = {"reader": reader, "requests": requests, "out": np.full(shape, np.nan, np.float32)}
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(eval, [(code, names)] * 4)
    for found in results:
        for patch, track in zip(found, tracks, strict=True):
            np.testing.assert_array_equal(patch, padded_slice(stock(store, track, "mixture"), 0, 3, 128))


@pytest.mark.parametrize("kind", ["plain float16", "zstd"])
def test_threads_share_a_reader_that_has_room_for_few(
    stores: dict[str, SpectrogramStore], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(patches, "MAXIMUM_OPEN_MAPS", 2)
    monkeypatch.setattr(patches, "MAXIMUM_CACHE_BYTES", 4 * 128 * 24 * 2)
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
from storage.store import SpectrogramStore
from storage.track_writer import write_track
store = SpectrogramStore.open_or_create(Path(sys.argv[1]), config={}, dataset={}, tool="test")
for number in range(int(sys.argv[2])):
    arrays = {name: np.full((1, 200, 24), number + 1, np.float16) for name in SPECTROGRAMS}
    store.add(write_track(store.path, f"new-{number}", name="x", split="train", seconds=1, arrays=arrays, sources=()))
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


READ_ALL = """
import sys
from pathlib import Path
import numpy as np
from storage import patch_reader as patches
from storage.patch_reader import PatchReader
from storage.store import SpectrogramStore

def kilobytes(name):
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name + ":")))

store = SpectrogramStore.open(Path(sys.argv[1]))
patches.MAXIMUM_CACHE_BYTES = 4 << 20
reader, tracks = PatchReader(store), store.tracks("train")
out, random = np.empty((16, 128, 512), np.float32), np.random.default_rng(0)

def batch():
    chosen = [tracks[random.integers(len(tracks))] for _ in range(16)]
    requests = [(track, 0, int(random.integers(track.frames))) for track in chosen]
    reader.read_batch(requests, {"mixture": out})

for start in range(0, tracks[0].frames, 128):
    for track in tracks:
        reader.read(track, "mixture", 0, start, out[0])
for _ in range(20):
    batch()
before = [kilobytes(name) for name in ("VmRSS", "RssAnon")]
for _ in range(int(sys.argv[2])):
    batch()
print(*[kilobytes(name) - first for name, first in zip(("VmRSS", "RssAnon"), before)])
"""


@needs_proc
@pytest.mark.parametrize(("compression", "batches"), [("none", 400), ("zstd", 20)])
def test_memory_stays_flat_while_reading(tmp_path: Path, compression: str, batches: int) -> None:
    store = new_store(tmp_path / "s.zarr")
    for number in range(6):
        arrays: dict[str, Array] = {"mixture": spectrogram(number, 1, 1000, "float16", BINS)}
        add_track(store, f"t-{number}", arrays, compression)
    store.save()
    result = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(store.path), str(batches)], check=True, capture_output=True, text=True
    )
    grown, grown_anonymous = map(int, result.stdout.split())
    # In that time 40 MB or more were read, through a cache of 4 MB.
    assert max(grown, grown_anonymous) < 4000


def test_many_more_shards_than_file_descriptors_are_open_at_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    tracks = [
        add_track(store, f"t-{number}", {"mixture": np.full((1, 3, 24), number + 1, np.float16)})
        for number in range(150)
    ]
    reader = PatchReader(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(path.name) for path in Path("/dev/fd").iterdir()) + 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 10, hard))
        for _ in range(2):
            for number, track in enumerate(tracks):
                assert (read(reader, track, "mixture", 0, 0, 3) == number + 1).all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
