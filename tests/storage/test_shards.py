import tracemalloc
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.compressed import blosc_size, zstd_size
from storage.layout import chunk_shape, padded_shape
from storage.manifest import ArrayRecord
from storage.shards import ZarrShard, open_shard, shard_bytes
from storage.track_writer import PlainArrayWriter
from tests.helpers import one_line

Array = NDArray[Any]

arrays = st.builds(
    lambda dtype, channels, length, rest, seed: random_array(dtype, (channels, length, *rest), seed),
    st.sampled_from(["float16", "float32"]),
    st.integers(1, 3),
    st.integers(0, 40),
    st.sampled_from([(), (1,), (5,), (3, 2)]),
    st.integers(0, 2**32 - 1),
)


def random_array(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Random bytes: NaN, negative zero and all else that a type can hold."""
    content = np.random.default_rng(seed).integers(0, 256, size=int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return content.astype(np.uint8).view(dtype).reshape(shape)


def create(folder: Path, shape: tuple[int, ...], chunk_length: int, dtype: Any, **options: Any) -> "zarr.Array[Any]":
    """An empty array of one shard, made by zarr-python."""
    return zarr.create_array(
        store=folder,
        shape=shape,
        dtype=dtype,
        chunks=chunk_shape(shape, chunk_length),
        shards=padded_shape(shape, chunk_length),
        fill_value=0,
        overwrite=True,
        **({"compressors": None} | options),
    )


def shard_of(folder: Path, axes: int) -> Path:
    return folder.joinpath("c", *["0"] * axes)


def write_plain(folder: Path, array: Array, chunk_length: int) -> Path:
    create(folder, array.shape, chunk_length, array.dtype)
    path = shard_of(folder, array.ndim)
    writer = PlainArrayWriter(path, array.shape, array.dtype, chunk_length)
    writer.write(array)
    writer.complete()
    return path


def record_of(
    path: Path, shape: tuple[int, ...], chunk_length: int, dtype: Literal["float16", "float32"] | str
) -> ArrayRecord:
    return ArrayRecord.model_validate(
        {"shard": "x", "shape": shape, "dtype": dtype, "chunk_length": chunk_length, "crc32c": 0}
        | {"bytes": path.stat().st_size if path.exists() else 1}
    )


def assert_same_bytes(found: Any, expected: Array) -> None:
    found = np.asarray(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


@settings(max_examples=80, deadline=None)
@given(array=arrays, chunk_length=st.integers(1, 17))
def test_stock_zarr_and_the_map_read_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, array: Array, chunk_length: int
) -> None:
    path = write_plain(tmp_path_factory.getbasetemp() / "shards", array, chunk_length)
    assert path.stat().st_size == shard_bytes(array.shape, chunk_length, array.dtype.itemsize)
    assert_same_bytes(zarr.open_array(path.parents[array.ndim], mode="r")[...], array)
    mapped = open_shard(path, record_of(path, array.shape, chunk_length, array.dtype.name))
    assert isinstance(mapped, np.ndarray)
    assert_same_bytes(mapped, array)
    with pytest.raises(ValueError, match="WRITEABLE"):
        mapped.flags.writeable = True


@settings(max_examples=60, deadline=None)
@given(
    array=arrays,
    chunk_length=st.integers(1, 7),
    compressed=st.booleans(),
    part=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_shard_that_zarr_wrote_is_read_right_whatever_its_order_and_compression(
    tmp_path_factory: pytest.TempPathFactory, array: Array, chunk_length: int, compressed: bool, part: tuple[int, int]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "theirs"
    options = {"compressors": "auto"} if compressed else {}
    create(folder, array.shape, chunk_length, array.dtype, **options, config={"write_empty_chunks": True})[...] = array
    path = shard_of(folder, array.ndim)
    if array.size == 0:
        return  # zarr writes no shard
    opened = open_shard(path, record_of(path, array.shape, chunk_length, array.dtype.name))
    channel = array.shape[0] - 1
    assert_same_bytes(opened[...], array)
    assert_same_bytes(opened[channel, min(part) : max(part)], array[channel, min(part) : max(part)])
    assert not opened[...].flags.writeable


def test_chunks_that_zarr_put_into_another_order_are_not_mapped(tmp_path: Path) -> None:
    expected = random_array("float32", (2, 30, 8), 2)
    create(tmp_path / "array", expected.shape, 10, expected.dtype)[...] = expected
    path = shard_of(tmp_path / "array", 3)
    # Same size and same values, but another order: what a map without the check would misread.
    assert path.stat().st_size == shard_bytes(expected.shape, 10, 4)
    assert path.read_bytes()[: expected.nbytes] != expected.tobytes()
    opened = open_shard(path, record_of(path, expected.shape, 10, "float32"))
    assert isinstance(opened, ZarrShard)
    assert_same_bytes(opened[...], expected)


def test_compressed_shard_of_the_size_of_an_uncompressed_one_is_not_mapped(tmp_path: Path) -> None:
    expected = random_array("float32", (1, 1), 0)
    create(tmp_path / "array", expected.shape, 5, expected.dtype, compressors="auto")[...] = expected
    path = shard_of(tmp_path / "array", 2)
    assert path.stat().st_size == shard_bytes(expected.shape, 5, 4)
    assert_same_bytes(open_shard(path, record_of(path, expected.shape, 5, "float32"))[...], expected)


def test_chunks_that_zarr_left_out_are_zeros(tmp_path: Path) -> None:
    expected = random_array("float32", (2, 30, 8), 2)
    expected[:, 10:20] = 0
    create(tmp_path / "array", expected.shape, 10, expected.dtype)[...] = expected
    path = shard_of(tmp_path / "array", 3)
    assert path.stat().st_size < shard_bytes(expected.shape, 10, 4)
    assert_same_bytes(open_shard(path, record_of(path, expected.shape, 10, "float32"))[...], expected)


def test_index_says_where_the_chunks_are_as_the_specification_writes_it(tmp_path: Path) -> None:
    content = write_plain(tmp_path / "array", np.ones((2, 5, 3), dtype=np.float32), 4).read_bytes()
    chunk_bytes = 4 * 3 * 4
    index = b"".join(
        (offset * chunk_bytes).to_bytes(8, "little") + chunk_bytes.to_bytes(8, "little") for offset in range(4)
    )
    assert content[4 * chunk_bytes :] == index + google_crc32c.value(index).to_bytes(4, "little")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_plain(tmp_path / "array", random_array("float32", (2, 30, 8), 1), 10)


def test_missing_shard_is_refused(shard: Path) -> None:
    record = record_of(shard, (2, 30, 8), 10, "float32")
    shard.unlink()
    one_line(lambda: open_shard(shard, record)[...], shard)


def test_shard_of_another_size_than_recorded_is_refused(shard: Path) -> None:
    record = record_of(shard, (2, 30, 8), 10, "float32")
    content = shard.read_bytes()
    for changed in (b"", content[:-1], content[:100], content + b"\0", content[4:], b"\0\0\0\0" + content):
        shard.write_bytes(changed)
        one_line(lambda: open_shard(shard, record)[...], shard)


def test_shard_recorded_with_another_shape_or_type_is_refused(shard: Path) -> None:
    for shape, dtype in (((2, 30, 4), "float32"), ((1, 30, 8), "float32"), ((2, 41, 8), "float32")):
        record = record_of(shard, shape, 10, dtype)
        one_line(lambda record=record: open_shard(shard, record)[...], shard.parents[3])  # type: ignore[misc]
    one_line(lambda: open_shard(shard, record_of(shard, (2, 30, 8), 10, "float16"))[...], shard.parents[3])


def test_shard_with_any_changed_byte_in_its_index_is_refused(shard: Path) -> None:
    record = record_of(shard, (2, 30, 8), 10, "float32")
    content = bytearray(shard.read_bytes())
    for position in range(2 * 30 * 8 * 4, len(content)):
        content[position] ^= 1
        shard.write_bytes(content)
        one_line(lambda: open_shard(shard, record)[...], shard)
        content[position] ^= 1
    shard.write_bytes(content)
    assert isinstance(open_shard(shard, record), np.ndarray)


@pytest.mark.parametrize("codec", [zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec(cname="zstd", typesize=4)])
def test_compressed_shard_whose_chunks_cannot_be_decoded_is_refused(tmp_path: Path, codec: Any) -> None:
    array = create(tmp_path / "array", (2, 30, 8), 10, "float32", compressors=codec)
    array[...] = np.arange(480, dtype=np.float32).reshape(2, 30, 8)
    path = shard_of(tmp_path / "array", 3)
    record = record_of(path, (2, 30, 8), 10, "float32")
    content = bytearray(path.read_bytes())
    content[:40] = bytes(40)
    path.write_bytes(content)
    one_line(lambda: open_shard(path, record)[...], path)


@pytest.mark.parametrize("name", ["zstd", "blosc"])
def test_chunk_that_would_decode_to_more_than_its_size_is_refused_before_it_takes_memory(
    tmp_path: Path, name: str
) -> None:
    codec: Any = zarr.codecs.ZstdCodec() if name == "zstd" else zarr.codecs.BloscCodec(cname="zstd", typesize=4)
    array = create(tmp_path / "array", (1, 10, 8), 10, "float32", compressors=codec)
    array[...] = np.ones((1, 10, 8), np.float32)
    path = shard_of(tmp_path / "array", 3)
    zeros = bytes(400_000_000)
    bomb = bytes(numcodecs.Zstd().encode(zeros) if name == "zstd" else numcodecs.Blosc(cname="zstd").encode(zeros))
    del zeros
    index = np.array([0, len(bomb)], "<u8").tobytes()
    path.write_bytes(bomb + index + google_crc32c.value(index).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        one_line(lambda: open_shard(path, record_of(path, (1, 10, 8), 10, "float32"))[...], path)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 10_000_000


@given(size=st.integers(0, 100_000), level=st.integers(1, 5))
def test_sizes_in_headers_are_those_of_the_content(size: int, level: int) -> None:
    content = bytes(size)
    assert zstd_size(bytes(numcodecs.Zstd(level).encode(content))[:18]) == size
    assert blosc_size(bytes(numcodecs.Blosc(clevel=level).encode(content))[:18]) == size


def test_array_without_its_metadata_is_refused(tmp_path: Path) -> None:
    array = create(tmp_path / "array", (2, 30, 8), 10, "float32", compressors="auto")
    array[...] = random_array("float32", (2, 30, 8), 1)
    path = shard_of(tmp_path / "array", 3)
    record = record_of(path, (2, 30, 8), 10, "float32")
    for damage in (b"", b"{}", b"[1]", b"\xff\xfe"):
        (tmp_path / "array" / "zarr.json").write_bytes(damage)
        one_line(lambda: open_shard(path, record)[...], tmp_path / "array" / "zarr.json")
    (tmp_path / "array" / "zarr.json").unlink()
    one_line(lambda: open_shard(path, record)[...], tmp_path / "array" / "zarr.json")


def test_map_outlives_its_file_for_as_long_as_a_part_of_it_is_in_use(shard: Path) -> None:
    opened = open_shard(shard, record_of(shard, (2, 30, 8), 10, "float32"))
    expected = np.array(opened[1, 11:13])
    part = opened[1, 11:13]
    del opened
    shard.unlink()
    np.testing.assert_array_equal(part, expected)
