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
from storage.shards import chunk_shape, encode_shard, map_shard, padded_shape, shard_bytes

Array = NDArray[Any]
DTYPES = ("float16", "float32", "float64", "int16", "uint8", "int64")

arrays = st.builds(
    lambda dtype, channels, length, rest, seed: random_array(dtype, (channels, length, *rest), seed),
    st.sampled_from(DTYPES),
    st.integers(1, 3),
    st.integers(0, 40),
    st.sampled_from([(), (1,), (5,), (3, 2)]),
    st.integers(0, 2**32 - 1),
)


def random_array(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Random bytes: NaN, negative zero and all else that a type can hold."""
    content = np.random.default_rng(seed).integers(0, 256, size=int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return content.astype(np.uint8).view(dtype).reshape(shape)


def create(folder: Path, shape: tuple[int, ...], chunk_length: int, dtype: Any) -> tuple[zarr.Array[Any], Path]:
    """An empty array of one shard, made by zarr-python, and the path of its shard."""
    array = zarr.create_array(
        store=folder,
        shape=shape,
        dtype=dtype,
        chunks=chunk_shape(shape, chunk_length),
        shards=padded_shape(shape, chunk_length),
        compressors=None,
        fill_value=0,
        overwrite=True,
    )
    return array, folder.joinpath("c", *["0"] * len(shape))


def write(folder: Path, array: Array, chunk_length: int) -> Path:
    _, shard = create(folder, array.shape, chunk_length, array.dtype)
    shard.parent.mkdir(parents=True)
    shard.write_bytes(encode_shard(array, chunk_length))
    return shard


def assert_same_bytes(found: Any, expected: Array) -> None:
    found = np.asarray(found)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


@settings(max_examples=80, deadline=None)
@given(array=arrays, chunk_length=st.integers(1, 17))
def test_stock_zarr_and_the_map_read_back_what_was_encoded(
    tmp_path_factory: pytest.TempPathFactory, array: Array, chunk_length: int
) -> None:
    shard = write(tmp_path_factory.getbasetemp() / "shards", array, chunk_length)
    assert shard.stat().st_size == shard_bytes(array.shape, chunk_length, array.dtype.itemsize)
    assert_same_bytes(zarr.open_array(shard.parents[array.ndim], mode="r")[...], array)
    mapped = map_shard(shard, array.shape, chunk_length, array.dtype)
    assert_same_bytes(mapped, array)
    assert not mapped.flags.writeable


def test_big_endian_and_strided_input_is_stored_little_endian_and_contiguous(tmp_path: Path) -> None:
    array = random_array("int16", (2, 30, 8), 0)
    expected = encode_shard(array, 10)
    assert encode_shard(array.astype(">i2"), 10) == expected
    assert encode_shard(np.asfortranarray(array), 10) == expected
    assert expected[: array.nbytes] == array.tobytes()


def test_index_says_where_the_chunks_are_as_the_specification_writes_it() -> None:
    content = encode_shard(np.ones((2, 5, 3), dtype=np.float32), 4)
    chunk_bytes = 4 * 3 * 4
    index = b"".join(
        (offset * chunk_bytes).to_bytes(8, "little") + chunk_bytes.to_bytes(8, "little") for offset in range(4)
    )
    assert content[4 * chunk_bytes :] == index + google_crc32c.value(index).to_bytes(4, "little")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write(tmp_path / "array", random_array("float32", (2, 30, 8), 1), 10)


def assert_refused(path: Path, shape: tuple[int, ...] = (2, 30, 8), dtype: str = "float32") -> None:
    with pytest.raises(UserError) as error:
        map_shard(path, shape, 10, np.dtype(dtype))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_shard_is_refused(shard: Path) -> None:
    shard.unlink()
    assert_refused(shard)


def test_shard_of_another_size_is_refused(shard: Path) -> None:
    content = shard.read_bytes()
    for changed in (b"", content[:-1], content[:100], content + b"\0", content[4:], b"\0\0\0\0" + content):
        shard.write_bytes(changed)
        assert_refused(shard)


def test_shard_mapped_as_another_shape_or_type_is_refused(shard: Path) -> None:
    assert_refused(shard, shape=(2, 30, 4))
    assert_refused(shard, shape=(1, 30, 8))
    assert_refused(shard, shape=(2, 41, 8))
    assert_refused(shard, dtype="float64")


def test_shard_with_any_changed_byte_in_its_index_is_refused(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    for position in range(2 * 30 * 8 * 4, len(content)):
        content[position] ^= 1
        shard.write_bytes(content)
        assert_refused(shard)
        content[position] ^= 1
    shard.write_bytes(content)
    map_shard(shard, (2, 30, 8), 10, np.dtype("float32"))


def test_shard_that_zarr_wrote_in_its_own_order_is_refused_instead_of_misread(tmp_path: Path) -> None:
    expected = random_array("float32", (2, 30, 8), 2)
    array, path = create(tmp_path / "array", expected.shape, 10, expected.dtype)
    array[...] = expected
    # Same size and same values, but another order: what a map without the check would misread.
    assert path.stat().st_size == shard_bytes(expected.shape, 10, 4)
    assert path.read_bytes()[: expected.nbytes] != expected.tobytes()
    assert_refused(path)


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4)), chunk_length=st.integers(1, 5))
def test_shard_that_zarr_wrote_is_read_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], chunk_length: int
) -> None:
    expected = random_array("int64", shape, chunk_length)
    array, path = create(tmp_path_factory.getbasetemp() / "theirs", shape, chunk_length, expected.dtype)
    array[...] = expected
    try:
        mapped = map_shard(path, shape, chunk_length, expected.dtype)
    except UserError:
        return
    assert_same_bytes(mapped, expected)


def test_compressed_shard_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(
        store=tmp_path / "array",
        shape=(2, 30, 8),
        dtype="float32",
        chunks=(1, 10, 8),
        shards=(2, 30, 8),
        fill_value=0,
    )
    array[...] = random_array("float32", (2, 30, 8), 3)
    assert_refused(tmp_path / "array" / "c" / "0" / "0" / "0")
