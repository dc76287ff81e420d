import json
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.errors import UserError
from storage.files import value_digest
from storage.manifest import MANIFEST_NAME, SPECTROGRAMS, SPLITS, Manifest, SourceFile, TrackRecord
from storage.shards import shard_bytes
from storage.store import SpectrogramStore, config_differences
from storage.track_writer import FRAMES_PER_CHUNK, TEMPORARY_FOLDER
from tests.disk import fill, small_disk
from tests.helpers import line_of, one_line, start, tree
from tests.tracks import new_store as empty_store
from tests.tracks import write_track

Array = NDArray[Any]
CONFIG = {"spectrogram": {"sample_rate": 8192, "n_fft": 16}, "dtype": "float16"}
DATASET = {"kind": "folder", "root": "/songs"}
CHANNELS, FRAMES, BINS = 2, 300, 8

WRITE_TRACKS = """
import sys
from pathlib import Path
import numpy as np
from storage.manifest import SPECTROGRAMS
from tests.tracks import write_track
store, prefix, first, last, frames = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
print("ready", flush=True)
for number in range(first, last):
    arrays = {name: np.full((2, frames, 8), number % 1000 + 1, np.float16) for name in SPECTROGRAMS}
    record = write_track(store, f"{prefix}-{number}", arrays=arrays)
    print(record.model_dump_json(), flush=True)
"""


CREATE = """
import sys
from pathlib import Path
from storage.store import SpectrogramStore
print("ready", flush=True)
sys.stdin.readline()
store = SpectrogramStore.open_or_create(Path(sys.argv[1]), config={"n": 1}, dataset={"kind": sys.argv[2]}, tool="")
print(store.manifest.dataset["kind"], flush=True)
"""

READ_FOR_EVER = """
import sys
from pathlib import Path
from storage.store import SpectrogramStore
count = 0
while count < int(sys.argv[2]):
    store = SpectrogramStore.open(Path(sys.argv[1]))
    tracks = store.tracks("train")
    assert len(tracks) >= count, (len(tracks), count)
    count = len(tracks)
    for track in tracks[-3:]:
        for name in track.arrays:
            assert (store.array(track, name) == int(track.id.rpartition("-")[2]) + 1).all(), track
print("all there", flush=True)
"""


def start_writer(store: Path, prefix: str, first: int, last: int, frames: int) -> "subprocess.Popen[str]":
    return start(WRITE_TRACKS, store, prefix, first, last, frames)


def spectrograms(seed: int, frames: int = FRAMES, dtype: str = "float16") -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {name: generator.random((CHANNELS, frames, BINS)).astype(dtype) for name in SPECTROGRAMS}


def new_store(path: Path, **changes: Any) -> SpectrogramStore:
    return empty_store(path, **({"config": CONFIG, "dataset": DATASET} | changes))


def write(
    store: SpectrogramStore,
    track_id: str,
    arrays: dict[str, Array],
    split: str = "train",
    sources: tuple[SourceFile, ...] = (),
) -> TrackRecord:
    return write_track(
        store.path, track_id, name=f"Name of {track_id}", split=split, seconds=1.5, arrays=arrays, sources=sources
    )


def filled_store(path: Path) -> SpectrogramStore:
    """Two training tracks and a validation track with a waveform."""
    store = new_store(path)
    store.add(write(store, "b-2", spectrograms(2)))
    store.add(write(store, "a-1", spectrograms(1, frames=5)))
    waveform = {"mixture_waveform": np.ones((CHANNELS, 70_000), np.float32)}
    store.add(write(store, "c-3", spectrograms(3) | waveform, split="valid"))
    store.save()
    return store


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


def manifest_text(store: SpectrogramStore) -> str:
    return (store.path / MANIFEST_NAME).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "7",
        lambda text: "{}",
        lambda text: "\0" * len(text),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace('"format": "vocsep-spectrograms"', '"format": "another"'),
        lambda text: text.replace("8192", "8193"),
        lambda text: text.replace('"frames": 300', '"frames": "many"'),
        lambda text: text.replace('"frames": 300,', ""),
        lambda text: text.replace('"tool"', '"tools"'),
    ],
)
def test_damaged_manifest_gives_one_line_that_names_it(tmp_path: Path, damage: Callable[[str], str]) -> None:
    store = filled_store(tmp_path / "s.zarr")
    text = damage(manifest_text(store))
    assert text != manifest_text(store)
    (store.path / MANIFEST_NAME).write_text(text, encoding="utf-8")
    for open_it in (SpectrogramStore.open, new_store):
        one_line(lambda open_it=open_it: open_it(store.path), store.path / MANIFEST_NAME)  # type: ignore[misc]


def test_manifest_that_is_not_utf_8_gives_one_line(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    (store.path / MANIFEST_NAME).write_bytes(b"\xff\xfe" + manifest_text(store).encode())
    one_line(lambda: SpectrogramStore.open(store.path), store.path / MANIFEST_NAME)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_character_of_the_manifest_gives_at_most_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "mangled.zarr"
    if not path.exists():
        filled_store(path)
    file = path / MANIFEST_NAME
    text = file.read_text(encoding="utf-8")
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from('0123456789"{}[],:-. abcx/'))
    try:
        file.write_text(text[:position] + character + text[position + 1 :], encoding="utf-8")
        for open_it in (SpectrogramStore.open, new_store):
            message = ""
            try:
                open_it(path)
            except UserError as error:
                message = str(error)
            assert "\n" not in message
    finally:
        file.write_text(text, encoding="utf-8")


def test_killed_writer_leaves_no_half_track_and_what_it_leaves_is_discarded(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    whole, frames = tree(store.path), 20_000
    for attempt, seconds in enumerate((0.01, 0.05, 0.1)):
        writer = start_writer(store.path, f"killed{attempt}", 0, 1_000_000, frames)
        assert line_of(writer) == "ready"
        assert line_of(writer)
        time.sleep(seconds)
        writer.kill()
        writer.communicate(timeout=600)
    killed = sorted((store.path / "train").glob("killed*"))
    assert len(killed) >= 3
    for folder in killed:
        expected = int(folder.name.rpartition("-")[2]) % 1000 + 1
        for name in SPECTROGRAMS:
            array = zarr.open_array(folder / name, mode="r")
            assert array.shape == (2, frames, 8)
            assert (np.asarray(array[...]) == expected).all()
    again = new_store(store.path)
    assert again.manifest == store.manifest
    again.discard_unfinished()
    again.discard_unfinished()
    assert not (store.path / TEMPORARY_FOLDER).exists()
    assert {name: content for name, content in tree(store.path).items() if "killed" not in name} == whole
    # What lies there under a final name is no obstacle to writing that track.
    again.add(write(again, killed[0].name, spectrograms(4)))
    again.save()
    assert SpectrogramStore.open(store.path).damaged_shards() == []


def test_track_is_whole_from_the_first_instant_it_is_seen(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    frames = 20_000
    shard_size = shard_bytes((2, frames, 8), FRAMES_PER_CHUNK, 2)
    writer = start_writer(store.path, "t", 0, 25, frames)
    seen: set[Path] = set()
    while writer.poll() is None:
        for folder in set((store.path / "train").glob("t-*")) - seen:
            assert [(folder / name / "c/0/0/0").stat().st_size for name in SPECTROGRAMS] == [shard_size] * 3
            seen.add(folder)
    writer.communicate(timeout=600)
    assert len(seen) > 5


def test_writer_whose_arrays_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    before = tree(store.path)
    bad = spectrograms(1) | {"vocals": np.array([[object()]])}
    with pytest.raises((TypeError, ValueError)):
        write(store, "bad", bad)
    assert tree(store.path) == before


def test_threads_write_different_tracks_at_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda seed: write(store, f"t-{seed:02}", spectrograms(seed)), range(24)))
    for record in records:
        store.add(record)
    store.save()
    again = SpectrogramStore.open(store.path)
    assert again.damaged_shards() == []
    for seed, track in enumerate(again.tracks("train")):
        np.testing.assert_array_equal(again.array(track, "vocals"), spectrograms(seed)["vocals"])


def test_processes_write_different_tracks_at_once(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    writers = [start_writer(store.path, f"p{number}", 0, 6, 500) for number in range(3)]
    for writer in writers:
        output, _ = writer.communicate(timeout=600)
        assert writer.returncode == 0
        for line in output.splitlines()[1:]:
            store.add(TrackRecord.model_validate_json(line))
    store.save()
    again = SpectrogramStore.open(store.path)
    assert len(again.tracks("train")) == 18
    assert again.damaged_shards() == []
    for track in again.tracks("train"):
        assert (again.array(track, "mixture") == int(track.id.rpartition("-")[2]) + 1).all()
    assert not list((store.path / TEMPORARY_FOLDER).iterdir())


def test_readers_open_a_whole_store_at_every_moment_while_a_writer_adds_tracks(tmp_path: Path) -> None:
    store = new_store(tmp_path / "s.zarr")
    readers = [start(READ_FOR_EVER, store.path, 40) for _ in range(3)]
    for number in range(40):
        arrays: dict[str, Array] = {name: np.full((2, 300, 8), number + 1, np.float16) for name in SPECTROGRAMS}
        store.add(write(store, f"t-{number:02}", arrays))
        store.save()
    assert [reader.communicate(timeout=600)[0] for reader in readers] == ["all there\n"] * 3


def test_of_processes_that_create_a_store_at_once_one_does_and_the_others_open_it(tmp_path: Path) -> None:
    for attempt in range(2):
        path = tmp_path / f"{attempt}.zarr"
        processes = [start(CREATE, path, f"of process {number}") for number in range(4)]
        assert {line_of(process) for process in processes} == {"ready"}
        answers = {process.communicate("\n", timeout=600)[0] for process in processes}
        assert len(answers) == 1
        assert SpectrogramStore.open(path).manifest.dataset["kind"] == answers.pop().strip()
        assert list(tmp_path.iterdir()) == [path]
        shutil.rmtree(path)


def test_discarding_keeps_what_the_manifest_names_and_what_lies_beside_and_deletes_the_rest(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    before = tree(tmp_path)
    (tmp_path / ".s.zarr.unfinished-0123").mkdir()  # a store that a killed process was about to create or delete
    (tmp_path / "other").write_text("mine")
    (tmp_path / ".other.zarr.unfinished-0123").mkdir()
    write(store, "d-4", spectrograms(4))
    store.discard_unfinished()
    assert tree(tmp_path) == before | {"other": b"mine"}
    assert not (tmp_path / ".s.zarr.unfinished-0123").exists()
    assert (tmp_path / ".other.zarr.unfinished-0123").exists()
    assert not (store.path / "train" / "d-4").exists()


def test_track_that_leaves_the_manifest_leaves_the_saved_one_before_its_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled_store(tmp_path / "s.zarr")
    named_at_deletion = []

    def deleting(path: Path, **_: object) -> None:
        if path.name == "b-2":
            named_at_deletion.append(sorted(SpectrogramStore.open(store.path).manifest.tracks))

    monkeypatch.setattr(shutil, "rmtree", deleting)
    del store.manifest.tracks["b-2"]
    store.discard_unfinished()
    assert named_at_deletion == [["a-1", "c-3"]]


def test_full_disk_keeps_the_saved_manifest_and_its_tracks_until_there_is_room_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 3 << 20) as disk:
        store = filled_store(disk / "s.zarr")
        held = SpectrogramStore.open(store.path).manifest
        fill(disk / "filler")
        with pytest.raises(OSError, match="No space left"):
            write(store, "d-4", spectrograms(4))
        with pytest.raises(OSError, match="No space left"):
            store.save()
        assert SpectrogramStore.open(store.path).manifest == held
        assert store.damaged_shards() == []
        (disk / "filler").unlink()
        store.add(write(store, "d-4", spectrograms(4)))
        store.discard_unfinished()
        assert sorted(SpectrogramStore.open(store.path).manifest.tracks) == ["a-1", "b-2", "c-3", "d-4"]
        assert sorted(entry.name for entry in store.path.iterdir()) == [
            "manifest.json",
            "test",
            "train",
            "valid",
            "zarr.json",
        ]


def test_track_written_again_replaces_the_old_one_whole(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    extra = {"mixture_waveform": np.zeros((CHANNELS, 10), np.float32)}
    store.add(write(store, "b-2", spectrograms(2) | extra))
    store.add(write(store, "b-2", spectrograms(9, frames=40)))
    store.save()
    again = SpectrogramStore.open(store.path)
    track = again.manifest.tracks["b-2"]
    assert track.frames == 40
    assert sorted(track.arrays) == sorted(SPECTROGRAMS)
    assert not (store.path / "train" / "b-2" / "mixture_waveform").exists()
    np.testing.assert_array_equal(again.array(track, "mixture"), spectrograms(9, frames=40)["mixture"])
    assert not list((store.path / TEMPORARY_FOLDER).iterdir())


def test_map_taken_before_a_track_was_replaced_keeps_the_old_values(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "s.zarr")
    mapped = store.array(store.manifest.tracks["b-2"], "mixture")
    write(store, "b-2", spectrograms(9))
    np.testing.assert_array_equal(mapped, spectrograms(2)["mixture"])


def source_file(path: str, modified_ns: int) -> SourceFile:
    return SourceFile(path=path, bytes=1, modified_ns=modified_ns, sha256="0" * 64)


def digest_of(path: Path, order: tuple[int, ...] = (0, 1), tag: int = 0, **changes: Any) -> str:
    store = new_store(path, **changes)
    for seed in order:
        store.add(write(store, f"t-{seed}", spectrograms(seed), sources=(source_file(f"/{path.name}", tag),)))
    store.save()
    return Manifest.load(path).data_digest


def test_data_digest_depends_on_neither_paths_nor_times_nor_order(tmp_path: Path) -> None:
    first = digest_of(tmp_path / "one.zarr")
    moved = {"kind": "folder", "root": "/elsewhere"}
    assert digest_of(tmp_path / "two.zarr", order=(1, 0), tag=5, dataset=moved, tool="newer") == first


def test_data_digest_changes_with_the_configuration_a_track_and_one_byte(tmp_path: Path) -> None:
    first = digest_of(tmp_path / "one.zarr")
    assert digest_of(tmp_path / "two.zarr", config=CONFIG | {"dtype": "float32"}) != first
    assert digest_of(tmp_path / "three.zarr", order=(0,)) != first
    store = SpectrogramStore.open(tmp_path / "one.zarr")
    arrays = spectrograms(1)
    arrays["vocals"].view(np.uint8)[1, 200, 3] ^= 1
    store.add(write(store, "t-1", arrays, sources=(source_file("/one.zarr", 0),)))
    assert store.manifest.data_digest != first


def test_demo_store_is_intact_and_copies_of_it_have_its_digest(
    demo_store: SpectrogramStore, copy_of_demo_store: Callable[[], SpectrogramStore]
) -> None:
    assert demo_store.damaged_shards() == []
    assert copy_of_demo_store().manifest.data_digest == demo_store.manifest.data_digest


def test_manifest_is_json_with_tracks_in_order_of_their_ids(tmp_path: Path) -> None:
    content = json.loads(manifest_text(filled_store(tmp_path / "s.zarr")))
    assert list(content["tracks"]) == ["a-1", "b-2", "c-3"]
