"""Shards are read whole once, and once more whenever their files change."""

import os
from pathlib import Path

import numpy as np
import pytest

from storage.checked import note_path, require_intact
from storage.manifest import ArrayRecord
from storage.store import SpectrogramStore
from tests.helpers import flip, one_line
from tests.tracks import new_store, write_track


@pytest.fixture
def store(tmp_path: Path) -> SpectrogramStore:
    made = new_store(tmp_path / "s.zarr")
    for number in range(3):
        values = np.full((1, 300, 8), number, np.float16)
        made.add(write_track(made.path, f"t-{number}", arrays={"vocals": values, "mixture": values}))
    made.save()
    return made


def arrays(store: SpectrogramStore) -> list[ArrayRecord]:
    return [array for track in store.tracks("train") for array in track.arrays.values()]


def test_every_shard_is_read_once_and_again_when_its_file_was_touched(store: SpectrogramStore) -> None:
    all_bytes = sum(array.bytes for array in arrays(store))
    assert require_intact(store, arrays(store)[:2]) == sum(array.bytes for array in arrays(store)[:2])
    assert require_intact(store, arrays(store)) == sum(array.bytes for array in arrays(store)[2:])
    assert require_intact(store, arrays(store)) == 0
    touched = arrays(store)[3]
    os.utime(store.path / touched.shard)
    assert require_intact(store, arrays(store)) == touched.bytes
    for content in ("", "[]", "{", '{"x": null}'):
        note_path(store.path).write_text(content)
        assert require_intact(store, arrays(store)) == all_bytes


def test_a_flipped_bit_is_refused_by_name_even_where_size_and_time_are_the_old_ones(store: SpectrogramStore) -> None:
    require_intact(store, arrays(store))
    path = store.path / arrays(store)[4].shard
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):
        one_line(lambda: require_intact(store, arrays(store)), path, "vocsep store repair")
    flip(path)
    assert require_intact(store, arrays(store)) == arrays(store)[4].bytes
    path.unlink()
    one_line(lambda: require_intact(store, arrays(store)), path, "missing")


def test_what_is_made_again_is_read_again(store: SpectrogramStore) -> None:
    require_intact(store, arrays(store))
    again = write_track(store.path, "t-1", arrays={"vocals": np.ones((1, 9, 8), np.float16)})
    store.add(again)
    assert require_intact(store, arrays(store)) == again.bytes
