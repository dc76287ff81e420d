import hashlib
import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.files import (
    file_digest,
    free_bytes,
    is_disk_full,
    read_json,
    save_arrays,
    value_digest,
    write_atomically,
    write_json,
)
from tests.disk import fill, small_disk
from tests.helpers import line_of, start

CONTENT_BYTES = 1 << 20
REWRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from storage.files import write_atomically
for number in itertools.count():
    write_atomically(Path(sys.argv[1]), bytes([number % 256]) * int(sys.argv[2]))
    print(number, flush=True)
"""

Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def is_whole(content: bytes) -> bool:
    return len(content) == CONTENT_BYTES and content == content[:1] * CONTENT_BYTES


def test_file_is_whole_at_every_instant_and_after_its_writer_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "value"
    for rewrites in (2, 5, 9):
        writer = start(REWRITE_FOR_EVER, path, CONTENT_BYTES)
        try:
            for _ in range(rewrites):
                assert line_of(writer)
                assert is_whole(path.read_bytes())
        finally:
            writer.kill()
            writer.communicate(timeout=600)
        assert is_whole(path.read_bytes())


def test_write_replaces_the_content_makes_folders_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for content in (b"first, longer", b"", b"third"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_what_was_there_and_leaves_no_temporary(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write_atomically(folder, b"content")
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == [folder / "inside"]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_folder_without_a_name_is_told_as_any_other(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError):
        write_atomically(Path(name), b"content")
    assert list(tmp_path.iterdir()) == []


def test_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        with pytest.raises(OSError, match="not a regular file"):
            write_atomically(path, b"new")
    assert pipe.is_fifo()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "pipe"]


def test_name_of_an_open_file_is_not_replaced_whatever_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "like-stdout"
    with (tmp_path / "redirected").open("w") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        for path in (link, Path(f"/dev/fd/{file.fileno()}"), Path(f"/proc/self/fd/{file.fileno()}")):
            with pytest.raises(OSError, match="not a regular file"):
                write_atomically(path, b"new")
    assert link.is_symlink()
    assert (tmp_path / "redirected").read_bytes() == b""
    # A link of the user's own to a file, or to nothing, is as good a name as any.
    for name in ("redirected", "nowhere"):
        other = tmp_path / f"link-to-{name}"
        other.symlink_to(tmp_path / name)
        write_atomically(other, b"new")
        assert other.read_bytes() == b"new"


def test_write_to_a_full_disk_keeps_the_old_file_and_is_told_from_other_failures(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        path = disk / "file"
        write_atomically(path, b"old")
        assert 900_000 < free_bytes(disk / "not yet" / "there") < 1 << 20
        fill(disk / "filler")
        assert free_bytes(disk) == 0
        with pytest.raises(OSError, match="No space left") as error:
            write_atomically(path, bytes(5000))
        assert is_disk_full(error.value)
        assert path.read_bytes() == b"old"
        assert sorted(entry.name for entry in disk.iterdir()) == ["file", "filler"]
    assert not is_disk_full(FileNotFoundError(2, "No such file or directory"))


def test_written_file_can_be_read_by_whoever_could_read_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    assert oct((tmp_path / "atomic").stat().st_mode) == oct((tmp_path / "ordinary").stat().st_mode)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"loss": [1.0, math.nan]}])
def test_nan_and_infinity_are_refused_and_the_old_file_stays(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"loss": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, value)
    with pytest.raises(ValueError, match="JSON compliant"):
        value_digest(value)
    assert read_json(path) == {"loss": 1}
    assert list(tmp_path.iterdir()) == [path]


@given(value=Json)
def test_json_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_holds_names_that_are_not_utf_8(tmp_path: Path) -> None:
    value = {os.fsdecode(b"caf\xe9"): "caf\u00e9 \u65e5"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert "caf\u00e9 \u65e5" in (tmp_path / "x.json").read_text("utf-8")


def test_file_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    # Sizes around the block that is read at a time.
    for size in (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        content = bytes(range(256)) * (size // 256 + 1)
        path.write_bytes(content[:size])
        assert file_digest(path) == hashlib.sha256(content[:size]).hexdigest()
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(value=st.dictionaries(st.text(max_size=5), Json, min_size=1, max_size=5), data=st.data())
def test_value_digest_ignores_the_order_of_keys_and_nothing_else(value: dict[str, Any], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(value.items()))))
    assert value_digest(shuffled) == value_digest(value)
    name = data.draw(st.sampled_from(sorted(value)))
    assert value_digest(value | {name: [value[name]]}) != value_digest(value)
    assert len(value_digest(value)) == 64


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_arrays_are_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        save_arrays({"weights": np.ones(3)}, tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o666 & ~umask
