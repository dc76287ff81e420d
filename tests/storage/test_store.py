"""Stores: what is written is what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.files import value_digest
from storage.manifest import SPLITS
from storage.store import SpectrogramStore, config_differences
from storage.track_writer import FRAMES_PER_CHUNK
from tests.helpers import one_line, tree
from tests.storage.stores import BINS, CHANNELS, CONFIG, DATASET, FRAMES, filled_store, new_store, spectrograms, write


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_plain_zarr_reads_what_was_written_with_shapes_types_names_and_attributes(tmp_path: Path, dtype: str) -> None:
    store = new_store(tmp_path / "s.zarr")
    waveform = np.random.default_rng(0).standard_normal((CHANNELS, 70_000)).astype(np.float32)
    written = spectrograms(0, dtype=dtype) | {"mixture_waveform": waveform}
    store.add(write(store, "song-1", written, split="valid"))
    store.save()

    root = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert root.metadata.zarr_format == 3
    for split in SPLITS:
        assert isinstance(root[split], zarr.Group)
    attributes = dict(root.attrs)
    assert attributes["format"] == "vocsep-spectrograms"
    assert attributes["version"] == 1
    assert attributes["config"] == CONFIG
    assert attributes["config_digest"] == value_digest(CONFIG)
    assert attributes["dataset"] == DATASET
    assert attributes["tool"] == "test"
    track = root["valid/song-1"]
    assert isinstance(track, zarr.Group)
    assert dict(track.attrs) == {"name": "Name of song-1", "seconds": 1.5}
    assert sorted(track.array_keys()) == sorted(written)
    for name, expected in written.items():
        array = track[name]
        assert isinstance(array, zarr.Array)
        assert array.dtype == expected.dtype
        found = np.asarray(array[...])
        np.testing.assert_array_equal(found, expected)
        is_waveform = name.endswith("waveform")
        assert array.metadata.dimension_names == (  # type: ignore[union-attr]
            ("channel", "sample") if is_waveform else ("channel", "frame", "bin")
        )
        if not is_waveform:
            assert array.chunks == (1, FRAMES_PER_CHUNK, BINS)
        shards = [file for file in (store.path / "valid" / "song-1" / name / "c").rglob("*") if file.is_file()]
        assert len(shards) == 1


def test_reopened_store_is_equal_and_its_arrays_are_read_only(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    for again in (SpectrogramStore.open(store.path), new_store(store.path)):
        assert again.manifest == store.manifest
        assert [track.id for track in again.tracks("train")] == ["a-1", "b-2"]
        assert [track.id for track in again.tracks("valid")] == ["c-3"]
        assert again.tracks("test") == []
        for seed, track in zip((1, 2, 3), again.manifest.tracks.values(), strict=True):
            for name, expected in spectrograms(seed, track.frames).items():
                array = again.array(track, name)
                np.testing.assert_array_equal(array, expected)
                assert not array.flags.writeable
        assert again.damaged_shards() == []
    track = store.tracks("train")[1]
    assert (track.name, track.channels, track.frames, track.seconds) == ("Name of b-2", CHANNELS, FRAMES, 1.5)
    on_disk = sum(len(content) for name, content in tree(store.path / "train" / "b-2").items() if "/c/" in name)
    assert track.bytes == on_disk


def test_track_that_the_manifest_does_not_name_does_not_exist(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    store.save_interval_seconds = 1000
    record = write(store, "d-4", spectrograms(4))
    assert [track.id for track in store.tracks("train")] == ["a-1", "b-2"]
    store.add(record)
    assert [track.id for track in SpectrogramStore.open(store.path).tracks("train")] == ["a-1", "b-2"]
    store.save()
    assert [track.id for track in SpectrogramStore.open(store.path).tracks("train")] == ["a-1", "b-2", "d-4"]


def test_added_tracks_are_saved_now_and_then(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    store.save_interval_seconds = 1000
    store.add(write(store, "a-1", spectrograms(1, frames=5)))
    assert SpectrogramStore.open(store.path).manifest.tracks == {}
    store.save_interval_seconds = 0
    store._save_seconds = 0
    store.add(write(store, "b-2", spectrograms(2, frames=5)))
    assert sorted(SpectrogramStore.open(store.path).manifest.tracks) == ["a-1", "b-2"]


def test_changed_configuration_is_refused_naming_the_field_and_both_values(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    before = tree(store.path)
    one_line(lambda: new_store(store.path, config=CONFIG | {"dtype": "float32"}), store.path, "dtype: ", "float16")
    one_line(lambda: new_store(store.path, config=CONFIG | {"dtype": "float32"}), "float32")
    one_line(lambda: new_store(store.path, config=CONFIG | {"added": 1}), "added: None -> 1")
    assert tree(store.path) == before


def test_changed_field_inside_a_group_of_fields_is_named_without_its_equal_neighbours() -> None:
    changed = CONFIG | {"spectrogram": {"sample_rate": 8192, "n_fft": 32}}
    message = config_differences(CONFIG, changed)
    assert "n_fft" in message
    assert "16" in message
    assert "32" in message
    assert "dtype" not in message
    assert config_differences(CONFIG, dict(reversed(CONFIG.items()))) == ""


def test_foreign_folder_and_file_are_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for path in (folder, folder / "mine.txt"):
        one_line(lambda path=path: new_store(path), path)  # type: ignore[misc]
        one_line(lambda path=path: SpectrogramStore.open(path), path)  # type: ignore[misc]
    one_line(lambda: SpectrogramStore.open(tmp_path / "nothing"), "nothing", "make preprocess")
    assert tree(tmp_path) == {"folder/mine.txt": b"mine"}


def test_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    new_store(tmp_path / "empty")
    assert SpectrogramStore.open(tmp_path / "empty").manifest.tracks == {}


@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "emptied"])
def test_missing_or_resized_shard_is_refused_and_named_and_its_track_alone_is_made_again(
    tmp_path: Path, damage: str
) -> None:
    store = filled_store(tmp_path / "s.zarr")
    shard = "train/b-2/vocals/c/0/0/0"
    path = store.path / shard
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": content[:-1], "longer": content + b"\0", "emptied": b""}[damage])
    one_line(lambda: SpectrogramStore.open(store.path), store.path, shard)
    assert store.damaged_shards(read_every_byte=False) == [shard]
    assert store.damaged_shards() == [shard]

    again = new_store(store.path)
    assert sorted(again.manifest.tracks) == ["a-1", "c-3"]
    again.add(write(again, "b-2", spectrograms(2)))
    again.save()
    assert SpectrogramStore.open(store.path).manifest == store.manifest


def test_two_lost_shards_of_one_track_drop_it_once(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    (store.path / "train/b-2/vocals/c/0/0/0").unlink()
    (store.path / "train/b-2/mixture/c/0/0/0").unlink()
    assert sorted(new_store(store.path).manifest.tracks) == ["a-1", "c-3"]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found_and_only_its_shard_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.zarr"
    store = SpectrogramStore.open(path) if path.exists() else filled_store(path)
    shards = [array.shard for track in store.manifest.tracks.values() for array in track.arrays.values()]
    shard = path / data.draw(st.sampled_from(shards))
    content = bytearray(shard.read_bytes())
    position, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    try:
        content[position] ^= 1 << bit
        shard.write_bytes(content)
        assert store.damaged_shards() == [str(shard.relative_to(path))]
    finally:
        content[position] ^= 1 << bit
        shard.write_bytes(content)
    assert store.damaged_shards() == []
