import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.manifest import SPECTROGRAMS, TrackRecord
from storage.store import SpectrogramStore
from storage.track_writer import TEMPORARY_FOLDER, Compression, track_writer
from tests.disk import small_disk
from tests.tracks import new_store, write_track

Array = NDArray[Any]
COMPRESSIONS: tuple[Compression, ...] = ("none", "zstd", "blosc")


def magnitudes(seed: int, channels: int = 2, frames: int = 300, bins: int = 32, dtype: str = "float16") -> Array:
    return np.abs(np.random.default_rng(seed).standard_normal((channels, frames, bins))).astype(dtype)


def write(
    store: SpectrogramStore, arrays: dict[str, Array], compression: Compression, track_id: str = "t"
) -> TrackRecord:
    track = write_track(store.path, track_id, arrays=arrays, compression=compression)
    store.add(track)
    return track


def write_blocks(store: SpectrogramStore, array: Array, ends: list[int], compression: Compression) -> TrackRecord:
    """The array in blocks that end at `ends` and at its own end."""
    with track_writer(store.path, "t", name="x", split="train", seconds=1.0, compression=compression) as writer:
        target = writer.array("mixture", array.shape, array.dtype)
        begin = 0
        for end in [*ends, array.shape[1]]:
            target.write(array[:, begin:end])
            begin = end
    assert writer.record is not None
    return writer.record


def shard_bytes(store: SpectrogramStore, track: TrackRecord, name: str = "mixture") -> bytes:
    return (store.path / track.arrays[name].shard).read_bytes()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_blocks_make_the_same_bytes_and_stock_zarr_reads_them(
    tmp_path_factory: pytest.TempPathFactory, compression: Compression, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"blocks-{compression}.zarr"
    store = SpectrogramStore.open(path) if path.exists() else new_store(path)
    frames = data.draw(st.sampled_from([1, 127, 128, 129, 300]))
    array = magnitudes(frames, data.draw(st.integers(1, 2)), frames, 3, data.draw(st.sampled_from(["f2", "f4"])))
    ends = sorted(data.draw(st.lists(st.integers(0, frames), max_size=4)))
    whole = write_blocks(store, array, [], compression)
    expected = shard_bytes(store, whole)
    strided = np.asfortranarray(array).astype(array.dtype.newbyteorder(">"))
    track = write_blocks(store, strided if compression == "none" else np.asfortranarray(array), ends, compression)
    assert track == whole
    content = shard_bytes(store, track)
    assert content == expected
    assert (track.arrays["mixture"].bytes, track.arrays["mixture"].crc32c) == (
        len(content),
        google_crc32c.value(content),
    )
    found = np.asarray(zarr.open_array(path / "train/t/mixture", mode="r")[...])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_store_says_which_codec_it_uses_checks_it_and_reads_it_back(tmp_path: Path, compression: Compression) -> None:
    store = new_store(tmp_path / "s.zarr")
    arrays = {name: magnitudes(number) for number, name in enumerate(SPECTROGRAMS)}
    arrays["mixture_waveform"] = np.random.default_rng(9).standard_normal((2, 70_000)).astype(np.float32)
    track = write(store, arrays, compression)
    store.save()
    again = SpectrogramStore.open(store.path)
    assert again.damaged_shards() == []
    for name, expected in arrays.items():
        found = again.array(track, name)
        np.testing.assert_array_equal(found, expected)
        assert not found.flags.writeable
        metadata = json.loads((store.path / "train/t" / name / "zarr.json").read_text(encoding="utf-8"))
        codecs = metadata["codecs"][0]["configuration"]["codecs"]
        assert [codec["name"] for codec in codecs] == {
            "none": ["bytes"], "zstd": ["bytes", "zstd"], "blosc": ["bytes", "blosc"]
        }[compression]  # fmt: skip
        if compression == "blosc":
            settings = codecs[1]["configuration"]
            assert (settings["shuffle"], settings["typesize"]) == ("bitshuffle", expected.dtype.itemsize)
    content = bytearray(shard_bytes(store, track))
    content[100] ^= 1
    (store.path / track.arrays["mixture"].shard).write_bytes(content)
    assert again.damaged_shards() == [track.arrays["mixture"].shard]


def test_compression_makes_music_smaller(demo_store: SpectrogramStore, tmp_path: Path) -> None:
    song = demo_store.tracks("train")[0]
    arrays: dict[str, Array] = {"mixture": np.array(demo_store.array(song, "mixture"))}
    store = new_store(tmp_path / "s.zarr")
    sizes = {name: write(store, arrays, name, name).bytes for name in COMPRESSIONS}
    assert sizes["blosc"] < sizes["zstd"] < sizes["none"]
    assert sizes["blosc"] < 0.95 * sizes["none"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_silence_has_its_shard_too(tmp_path: Path, compression: Compression) -> None:
    store = new_store(tmp_path / "s.zarr")
    silence = np.zeros((2, 300, 32), np.float16)
    track = write(store, {"mixture": silence}, compression)
    store.save()
    again = SpectrogramStore.open(store.path)
    np.testing.assert_array_equal(again.array(track, "mixture"), silence)


def test_array_without_frames_is_written_and_read(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    track = write_blocks(store, np.empty((2, 0, 32), np.float16), [0], "none")
    assert store.array(track, "mixture").shape == (2, 0, 32)
    assert zarr.open_array(store.path / "train/t/mixture", mode="r")[...].shape == (2, 0, 32)  # type: ignore[union-attr]


WRITE = """
import sys
from pathlib import Path
import numcodecs, numpy as np, zarr
from tests.tracks import write_track
zarr.config.set({"threading.max_workers": int(sys.argv[3]), "async.concurrency": int(sys.argv[3])})
numcodecs.blosc.set_nthreads(int(sys.argv[3]))
array = np.abs(np.random.default_rng(5).standard_normal((2, 2000, 64))).astype(np.float16)
record = write_track(Path(sys.argv[1]), sys.argv[3], arrays={"mixture": array}, compression=sys.argv[2])
print(record.arrays["mixture"].crc32c)
"""


@pytest.mark.parametrize("compression", ["zstd", "blosc"])
def test_compressed_bytes_do_not_depend_on_the_process_nor_its_threads(tmp_path: Path, compression: str) -> None:
    store = new_store(tmp_path / "s.zarr")
    checksums = {
        subprocess.run(
            [sys.executable, "-c", WRITE, str(store.path), compression, threads],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "8")
    }
    assert len(checksums) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_blocks_that_do_not_fit_or_are_too_few_are_refused_and_leave_nothing(
    tmp_path: Path, compression: Compression
) -> None:
    store = new_store(tmp_path / "s.zarr")
    array = magnitudes(0)

    def write_each(blocks: list[Array]) -> None:
        with track_writer(store.path, "t", name="x", split="train", seconds=1, compression=compression) as writer:
            target = writer.array("mixture", array.shape, array.dtype)
            for block in blocks:
                target.write(block)

    for blocks in ([array[:1]], [array[:, :, :5]], [array, array[:, :1]], [array[:, :200]], []):
        with pytest.raises(ValueError, match="300"):
            write_each(blocks)
    assert list((store.path / "train").iterdir()) == [store.path / "train" / "zarr.json"]
    assert not list((store.path / TEMPORARY_FOLDER).iterdir())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_disk_that_fails_at_the_end_costs_the_track_and_leaves_nothing(
    tmp_path: Path, compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path / "s.zarr")

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_blocks(store, magnitudes(1), [50, 100, 150, 200, 250], compression)
    assert not (store.path / "train" / "t").exists()
    assert not list((store.path / TEMPORARY_FOLDER).iterdir())


def test_system_without_posix_fallocate_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path / "s.zarr")
    first = shard_bytes(store, write(store, {"mixture": magnitudes(1)}, "none", "first"))
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert shard_bytes(store, write(store, {"mixture": magnitudes(1)}, "none", "second")) == first


@pytest.mark.parametrize("compression", [*COMPRESSIONS, "none without posix_fallocate"])
def test_full_disk_is_an_error_that_says_so_and_costs_only_the_track_that_did_not_fit(
    tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compression.endswith("posix_fallocate"):
        monkeypatch.delattr(os, "posix_fallocate")
    kind: Compression = compression.split()[0]  # type: ignore[assignment]
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        store = new_store(disk / "s.zarr")
        fits = magnitudes(1, 1, 1000, 512)
        noise = np.random.default_rng(0).integers(0, 0x7C00, (2, 3000, 512)).astype(np.uint16).view(np.float16)
        write(store, {"mixture": fits}, kind, "fits")
        store.save()
        with pytest.raises(OSError, match="No space left") as error:
            write(store, {"mixture": noise}, kind, "large")
        assert error.value.errno == errno.ENOSPC
        again = SpectrogramStore.open(store.path)
        assert list(again.manifest.tracks) == ["fits"]
        assert again.damaged_shards() == []
        np.testing.assert_array_equal(again.array(again.manifest.tracks["fits"], "mixture"), fits)
        assert not (store.path / "train" / "large").exists()
        assert not list((store.path / TEMPORARY_FOLDER).iterdir())
        # What the track had taken is free again.
        write(store, {"mixture": fits}, kind, "next")
