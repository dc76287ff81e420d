"""Music from Debian packages: real packages, from a folder instead of an archive on the network."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.helpers import one_line, tree
from vocsep.recipes.packages import SMALLEST_SONG_BYTES, fetch_music

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb on this machine")

SONG = b"s" * SMALLEST_SONG_BYTES
APT = """#!/bin/sh
# apt-get download --quiet PACKAGE: writes the package into the working directory.
cp "{archive}/$3.deb" . || {{ echo "E: Unable to locate package $3" >&2; exit 100; }}
"""


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages that apt-get finds, in the place of Debian's archive; each test works in an empty folder."""
    folder, programs, here = (tmp_path / name for name in ("archive", "programs", "here"))
    for one in (folder, programs, here):
        one.mkdir()
    (programs / "apt-get").write_text(APT.format(archive=folder))
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(here)
    return folder


def build(archive: Path, name: str, files: dict[str, bytes]) -> None:
    """A Debian package with these files."""
    root = archive / name
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "DEBIAN").mkdir(parents=True)
    fields = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "a <a@b>", "Description": "music"}
    (root / "DEBIAN" / "control").write_text("".join(f"{title}: {text}\n" for title, text in fields.items()))
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(root), str(archive / f"{name}.deb")]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("is_absolute", [False, True])
def test_songs_come_out_of_packages_and_noises_do_not(archive: Path, tmp_path: Path, is_absolute: bool) -> None:
    game = tmp_path / "game.pk3"
    with zipfile.ZipFile(game, "w") as packed:
        packed.writestr("maps/1.bsp", SONG)
        packed.writestr("sound/theme.ogg", SONG + b"2")
    music = {"Late.ogg": SONG + b"1", "door.ogg": b"small", "readme.txt": SONG, "data.pk3": game.read_bytes()}
    build(archive, "a-music", {f"usr/share/{name}": content for name, content in music.items()})
    folder = tmp_path / "music" if is_absolute else Path("music")
    assert fetch_music(["a-music"], folder) == folder
    assert sorted(tree(folder).values()) == [SONG + b"1", SONG + b"2"]
    assert [path.name for path in folder.iterdir()] == ["a-music"]
    # What was fetched once needs no package again.
    (archive / "a-music.deb").unlink()
    fetch_music(["a-music"], folder)
    assert len(tree(folder)) == 2


def test_missing_package_and_one_without_music_are_one_line_and_leave_nothing(archive: Path) -> None:
    build(archive, "b-music", {"usr/share/door.ogg": b"small"})
    one_line(lambda: fetch_music(["c-music"], Path("music")), "c-music", "Unable to locate package")
    one_line(lambda: fetch_music(["b-music"], Path("music")), "b-music", "no sound file")
    assert list(Path("music").iterdir()) == []


def test_machine_without_debians_programs_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    one_line(lambda: fetch_music(["a-music"], Path("music")), "apt-get", "Debian")
