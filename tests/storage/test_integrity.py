import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from storage.errors import UserError
from storage.integrity import Problem, drop_damaged, problems
from storage.lock import store_lock
from storage.manifest import MANIFEST_NAME, SPECTROGRAMS, SPLITS, Manifest
from storage.store import SpectrogramStore
from storage.track_writer import TEMPORARY_FOLDER
from tests.helpers import flip, one_line, tree
from tests.storage import hostile
from tests.tracks import write_track

CONFIG = {"spectrogram": {"sample_rate": 8192, "n_fft": 16}, "dtype": "float16"}
SHARD = "train/b-2/vocals/c/0/0/0"

HALF_WRITE = """
import os, sys
from pathlib import Path
import numpy as np
from storage.track_writer import track_writer
with track_writer(Path(sys.argv[1]), "half", name="x", split="train", seconds=1.0) as writer:
    writer.array("mixture", (2, 300, 8), "float16").write(np.ones((2, 100, 8), np.float16))
    os._exit(9)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SpectrogramStore:
    """Tracks a-1 and b-2 for training, c-3 for validation; not to be changed."""
    store = SpectrogramStore.open_or_create(
        tmp_path_factory.mktemp("made") / "s.zarr", config=CONFIG, dataset={"kind": "folder", "root": "/x"}, tool="test"
    )
    for number, (key, split) in enumerate((("a-1", "train"), ("b-2", "train"), ("c-3", "valid"))):
        generator = np.random.default_rng(number)
        arrays: dict[str, NDArray[Any]] = {
            name: generator.random((2, 300, 8)).astype(np.float16) for name in SPECTROGRAMS
        }
        store.add(write_track(store.path, key, name=key.upper(), split=split, seconds=1.5, arrays=arrays))
    store.save()
    return store


@pytest.fixture
def store(made: SpectrogramStore, tmp_path: Path) -> SpectrogramStore:
    """A copy of the store, to damage."""
    shutil.copytree(made.path, tmp_path / "s.zarr")
    return SpectrogramStore.open(tmp_path / "s.zarr")


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change the content of a JSON file as an editor would, that is, its layout too."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_manifest(store: SpectrogramStore, change: Callable[[Any], object]) -> None:
    edit(store.path / MANIFEST_NAME, change)


def assert_dropped(store: SpectrogramStore, *ids: str) -> None:
    """Drop what is damaged, and check that it is these tracks alone, and that the store is whole then."""
    opened, damaged, half_written = drop_damaged(store.path)
    assert sorted(track.id for track in damaged) == sorted(ids)
    assert half_written == set()
    rest = {key: track for key, track in store.manifest.tracks.items() if key not in ids}
    assert SpectrogramStore.open(store.path).manifest.tracks == opened.manifest.tracks == rest
    assert problems(store.path) == []
    for split in SPLITS:
        expected = sorted(track.id for track in rest.values() if track.split == split)
        assert sorted(entry.name for entry in (store.path / split).glob("*/")) == expected


def test_intact_store_has_no_problems_and_dropping_changes_nothing(store: SpectrogramStore) -> None:
    before = tree(store.path)
    assert problems(store.path) == []
    assert tree(store.path) == before
    assert_dropped(store)
    assert tree(store.path) == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, "its bytes changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "bytes instead of"),
        (Path.unlink, "missing"),
    ],
    ids=["flipped", "cut", "longer", "deleted"],
)
def test_damaged_shard_is_named_with_its_track_which_alone_is_dropped(
    store: SpectrogramStore, damage: Callable[[Path], object], words: str
) -> None:
    damage(store.path / SHARD)
    (problem,) = problems(store.path)
    assert problem.track == "B-2"
    assert problem.what.startswith(f"{SHARD}: ")
    assert words in problem.what
    assert_dropped(store, "b-2")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("train/b-2/zarr.json", lambda content: content["attributes"].update(name="Another")),
        ("train/b-2/zarr.json", lambda content: content.update(node_type="array")),
        ("train/b-2/vocals/zarr.json", lambda content: content.update(shape=[2, 299, 8])),
        ("train/b-2/vocals/zarr.json", lambda content: content.update(data_type="float32")),
    ],
)
def test_metadata_that_plain_zarr_would_read_otherwise_is_named_with_its_track(
    store: SpectrogramStore, file: str, change: Callable[[Any], object]
) -> None:
    edit(store.path / file, change)
    assert problems(store.path) == [Problem(f"{file}: differs from the manifest", "B-2")]
    (store.path / file).write_text("no JSON")
    assert problems(store.path) == [Problem(f"{file}: not JSON", "B-2")]
    (store.path / file).unlink()
    assert problems(store.path) == [Problem(f"{file}: missing", "B-2")]
    assert_dropped(store, "b-2")


@pytest.mark.parametrize(
    "change",
    [
        lambda track: track.update(frames=299),
        lambda track: track.update(id="another"),
        lambda track: track.update(channels=1),
        lambda track: track.update(name="Another"),
        lambda track: track.update(seconds=1.25),
        lambda track: track["arrays"]["vocals"].update(crc32c=1),
        lambda track: track["arrays"]["vocals"].update(bytes=1),
        lambda track: track["arrays"].pop("vocals"),
    ],
)
def test_edited_record_is_refused_at_open_and_its_track_alone_is_dropped(
    store: SpectrogramStore, change: Callable[[Any], object]
) -> None:
    edit_manifest(store, lambda content: change(content["tracks"]["b-2"]))
    for open_it in (
        SpectrogramStore.open,
        lambda path: SpectrogramStore.open_or_create(path, config=CONFIG, dataset={}, tool=""),
    ):
        with pytest.raises(UserError, match=r"manifest\.json: edited .*`vocsep store repair`"):
            open_it(store.path)
    found = problems(store.path)
    assert found[0].what == f"{MANIFEST_NAME}: edited since it was written"
    assert {problem.track for problem in found} - {""} <= {"B-2", "Another"}
    _, damaged, _ = drop_damaged(store.path)
    assert [track.sources for track in damaged] == [()]
    assert problems(store.path) == []
    kept = {key: track for key, track in store.manifest.tracks.items() if key != "b-2"}
    assert SpectrogramStore.open(store.path).manifest.tracks == kept


def test_record_that_was_taken_out_of_the_manifest_is_found_again_as_a_track_without_one(
    store: SpectrogramStore,
) -> None:
    edit_manifest(store, lambda content: content["tracks"].pop("b-2"))
    assert [problem.what.split(":")[0] for problem in problems(store.path)] == [MANIFEST_NAME, "train/b-2"]
    _, damaged, half_written = drop_damaged(store.path)
    assert damaged == []
    assert half_written == {"b-2"}
    assert sorted(SpectrogramStore.open(store.path).manifest.tracks) == ["a-1", "c-3"]


def test_record_that_was_put_into_the_manifest_is_taken_out(store: SpectrogramStore) -> None:
    edit_manifest(store, lambda content: content["tracks"].update({"d-4": content["tracks"]["a-1"]}))
    assert any("record of 'd-4'" in problem.what for problem in problems(store.path))
    drop_damaged(store.path)
    assert SpectrogramStore.open(store.path).manifest == store.manifest


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(tool="another"),
        lambda content: content["dataset"].update(kind="musdb18"),
        lambda content: content.update(digest="0" * 63 + "1"),
        lambda content: content.update(digest=""),
        lambda content: content.pop("digest"),
    ],
)
def test_edited_head_of_the_manifest_is_refused_and_named_and_costs_no_track(
    store: SpectrogramStore, change: Callable[[Any], object]
) -> None:
    edit_manifest(store, change)
    with pytest.raises(UserError, match=r"edited .*`vocsep store repair`"):
        SpectrogramStore.open(store.path)
    assert [problem.what for problem in problems(store.path)] == [f"{MANIFEST_NAME}: edited since it was written"]
    assert_dropped(store)


def test_edited_configuration_cannot_be_mended_which_one_line_says(store: SpectrogramStore) -> None:
    edit_manifest(store, lambda content: content["config"].update(dtype="float32"))
    before = tree(store.path)
    one_line(lambda: drop_damaged(store.path), MANIFEST_NAME, "delete the store")
    assert tree(store.path) == before


def test_every_bit_of_every_metadata_file_is_covered(store: SpectrogramStore) -> None:
    for name in ("zarr.json", "valid/zarr.json", "train/b-2/zarr.json", "valid/c-3/vocals/zarr.json"):
        file, content = store.path / name, (store.path / name).read_bytes()
        for position in range(0, len(content), 29):
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            file.write_bytes(changed)
            assert [problem.what.split(": ")[0] for problem in problems(store.path)] == [name]
        for longer in (content + b" ", content + b"\n" * 9, content.replace(b" ", b""), b"[" * 100_000):
            file.write_bytes(longer)
            assert [problem.what.split(": ")[0] for problem in problems(store.path)] == [name]
        file.write_bytes(content)
    assert problems(store.path) == []


@pytest.mark.parametrize("file", ["zarr.json", "train/zarr.json", "train/b-2/vocals/zarr.json"])
@pytest.mark.parametrize("content", [None, b"folder", b"", b"{}", b"[" * 100_000, b" "])
def test_changed_metadata_is_refused_when_it_is_read_and_mended(
    store: SpectrogramStore, file: str, content: bytes | None
) -> None:
    path = store.path / file
    written = path.read_bytes()
    path.unlink()
    if content == b"folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(written + content if content == b" " else content)

    def read() -> None:
        opened = SpectrogramStore.open(store.path)
        opened.array(opened.manifest.tracks["b-2"], "vocals")

    one_line(read, path)
    assert {problem.what.split(": ")[0] for problem in problems(store.path)} == {file}
    assert_dropped(store, *(["b-2"] if "b-2" in file else []))


@pytest.mark.parametrize(
    "file", ["notes", "train/notes", "train/b-2/notes", "train/b-2/vocals/c/0/0/1", "other/folder/file", ".hidden"]
)
def test_files_that_nobody_names_are_named_and_go_when_dropped(store: SpectrogramStore, file: str) -> None:
    before = tree(store.path)
    (store.path / file).parent.mkdir(parents=True, exist_ok=True)
    (store.path / file).write_bytes(b"x")
    assert [problem.what for problem in problems(store.path)] == [f"{file}: in no manifest"]
    assert_dropped(store)
    assert tree(store.path) == before


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b"null", b"\xff", b"device", b"folder", b"large"]
)
def test_manifest_that_is_none_is_one_line(store: SpectrogramStore, content: bytes) -> None:
    path = store.path / MANIFEST_NAME
    path.unlink()
    if content == b"device":
        path.symlink_to("/dev/zero")
    elif content == b"folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    if content == b"large":
        os.truncate(path, 1 << 40)
    for action in (SpectrogramStore.open, problems, drop_damaged):
        one_line(functools.partial(action, store.path), path)


@pytest.mark.parametrize("name", hostile.records(Path("/x")))
def test_record_that_leads_elsewhere_is_refused_by_name_and_never_followed(
    store: SpectrogramStore, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    manifest = store.path / MANIFEST_NAME
    manifest.write_bytes(hostile.spoil(manifest.read_bytes(), "b-2", hostile.records(outside)[name]))
    for open_it in (
        SpectrogramStore.open,
        lambda path: SpectrogramStore.open_or_create(path, config=CONFIG, dataset={}, tool=""),
    ):
        one_line(functools.partial(open_it, store.path), "'b-2'", "vocsep store repair")
    assert [problem.what for problem in problems(store.path) if "'b-2'" in problem.what]
    drop_damaged(store.path)
    assert sorted(SpectrogramStore.open(store.path).manifest.tracks) == ["a-1", "c-3"]
    assert problems(store.path) == []
    assert outside.read_bytes() == b"precious"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "s.zarr"]


VERSION_0_1_0 = Path(__file__).parents[1] / "data" / "version-0.1.0" / "store.zarr"


def test_store_of_version_0_1_0_is_intact_and_edits_of_its_manifest_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    shutil.copytree(VERSION_0_1_0, path)
    assert problems(path) == []
    tracks = SpectrogramStore.open(path).manifest.tracks
    assert sorted(track.name for track in tracks.values()) == ["one", "two"]
    text = (path / MANIFEST_NAME).read_text(encoding="utf-8")
    (path / MANIFEST_NAME).write_text(text.replace('"name": "one"', '"name": "One"'), encoding="utf-8")
    assert {problem.track for problem in problems(path)} == {"", "One"}
    drop_damaged(path)
    assert [track.name for track in SpectrogramStore.open(path).manifest.tracks.values()] == ["two"]


@pytest.mark.parametrize("file", ["zarr.json", "train/zarr.json", "test/zarr.json"])
@pytest.mark.parametrize("content", [None, "", "[]", '{"node_type": "array"}'])
def test_groups_of_the_store_itself_are_named_and_made_again_without_touching_a_track(
    store: SpectrogramStore, file: str, content: str | None
) -> None:
    before = tree(store.path)
    if content is None:
        (store.path / file).unlink()
    else:
        (store.path / file).write_text(content)
    ((what, track),) = problems(store.path)
    assert what.startswith(f"{file}: ")
    assert track == ""
    assert_dropped(store)
    assert tree(store.path) == before
    assert sorted(zarr.open_group(store.path, mode="r")["train"].group_keys()) == ["a-1", "b-2"]  # type: ignore[union-attr]


def test_what_killed_writers_left_is_named_unless_a_writer_is_at_work_and_goes_when_dropped(
    store: SpectrogramStore,
) -> None:
    before = tree(store.path)
    subprocess.run([sys.executable, "-c", HALF_WRITE, str(store.path)], check=False)
    (half,) = (store.path / TEMPORARY_FOLDER).iterdir()
    shutil.copytree(half, store.path / "train" / "half")  # under its final name, as after a power cut
    shutil.copytree(store.path / "train" / "a-1", store.path / "valid" / "a-1")
    (store.path / f".{MANIFEST_NAME}.0123").write_text("{")
    expected = ["train/half", "valid/a-1", f"{TEMPORARY_FOLDER}/{half.name}", f".{MANIFEST_NAME}.0123"]
    found = problems(store.path)
    assert [problem.what.split(": ")[0] for problem in found] == expected
    assert {problem.track for problem in found} == {""}
    with store_lock(store.path):
        assert problems(store.path) == []
        _, damaged, half_written = drop_damaged(store.path)
    assert damaged == []
    assert half_written == {"half", "a-1"}
    assert tree(store.path) == before


def test_unreadable_manifest_is_one_line_that_names_it(store: SpectrogramStore) -> None:
    (store.path / MANIFEST_NAME).write_text("{")
    for action in (problems, drop_damaged, Manifest.load):
        one_line(functools.partial(action, store.path), MANIFEST_NAME)
