"""Nothing is left of unfinished songs, however they ended."""

import contextlib
import functools
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from storage.errors import UserError
from tests.disk import fill, small_disk
from tests.helpers import one_line
from tests.vocsep.models.small_models import add_model, music
from vocsep.audio.formats import AudioFormat
from vocsep.audio.info import AudioInfo
from vocsep.audio.writing import AudioWriter
from vocsep.separation.files import separate_file
from vocsep.separation.separator import Separator
from vocsep.separation.unfinished import unfinished_folder

RATE = 22050
CONTAINERS: tuple[AudioFormat, ...] = ("wav", "flac", "mp3", "ogg", "m4a")
STEREO = AudioInfo(Path("song.wav"), RATE, "stereo", ("FL", "FR"))


def write(path: Path, seconds: float) -> Path:
    soundfile.write(path, music(0, 2, RATE, seconds).T, RATE)
    return path


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGHUP, 2), (signal.SIGINT, None), (signal.SIGKILL, None)]
)
def test_run_that_is_ended_leaves_nothing_or_its_leftovers_go_at_the_next(
    separator: Separator, tmp_path: Path, number: signal.Signals, workers: int | None
) -> None:
    add_model(tmp_path / "models", channels=2)
    soundfile.write(tmp_path / "song.wav", np.zeros((180 * RATE, 2), np.int16), RATE)
    # Enough for the signal to come in time on a busy machine, too.
    songs = [f"{index:02}.wav" for index in range(40)]
    for song in songs:
        os.link(tmp_path / "song.wav", tmp_path / song)
    options = ["--model", "1", "-o", "out", *([] if workers is None else ["--workers", str(workers)])]
    process = subprocess.Popen(
        [sys.executable, "-m", "vocsep", "separate", *songs, "--models", "models", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What a shell starts in the background ignores Ctrl-C, and so would this.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not (files_in(tmp_path / "out") if (tmp_path / "out").exists() else []):
        time.sleep(0.01)
    for _ in range(2):  # as a terminal that is closed does, and whoever is impatient
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        time.sleep(0.01)
    errors = process.communicate(timeout=600)[1]
    files = files_in(tmp_path / "out") if (tmp_path / "out").exists() else []
    # A song that was finished before the signal came stays, both stems of it.
    left = [file for file in files if not file.startswith(".")]
    finished = sorted({file.partition("/")[0] for file in left})
    assert left == [f"{song}/{stem}.wav" for song in finished for stem in ("accompaniment", "vocals")]
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert errors.splitlines()[-1] == f"stopped by {number.name}"
        assert "Traceback" not in errors
        assert files == left
        assert left or not (tmp_path / "out").exists()
    else:
        assert files != []
    separate_file(write(tmp_path / "three.wav", 0.3), tmp_path / "out", separator)
    assert files_in(tmp_path / "out") == sorted([*left, "three/accompaniment.wav", "three/vocals.wav"])
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


def test_what_another_run_is_writing_and_what_is_linked_stays(separator: Separator, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    with unfinished_folder(out) as folder:
        (folder / "stem.wav").touch()
        link = folder.with_name(f"{folder.name[:-4]}link")
        link.symlink_to(elsewhere, target_is_directory=True)
        separate_file(write(tmp_path / "song.wav", 0.3), out, separator)
        assert (folder / "stem.wav").exists()
    assert not folder.exists()
    assert (elsewhere / "precious").exists()


def test_refused_song_leaves_no_folder_and_takes_none_that_was_there(separator: Separator, tmp_path: Path) -> None:
    waveform = music(0, 2, RATE, 5)
    waveform[1, -5] = np.nan
    soundfile.write(tmp_path / "song.wav", waveform.T, RATE, subtype="FLOAT")
    one_line(lambda: separate_file(tmp_path / "song.wav", tmp_path / "a" / "out", separator), "song.wav", "NaN")
    assert not (tmp_path / "a").exists()
    (tmp_path / "out" / "song").mkdir(parents=True)
    one_line(lambda: separate_file(tmp_path / "song.wav", tmp_path / "out", separator), "song.wav", "NaN")
    assert list((tmp_path / "out").rglob("*")) == [tmp_path / "out" / "song"]


@pytest.mark.parametrize("umask", [0o002, 0o077])
@pytest.mark.parametrize("container", CONTAINERS)
def test_files_have_the_permissions_that_the_user_gives_new_files(
    tmp_path: Path, container: AudioFormat, umask: int
) -> None:
    before = os.umask(umask)
    try:
        with AudioWriter(tmp_path / f"stem.{container}", container, STEREO) as writer:
            writer.write(np.zeros((2, 2000), np.float32))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / f"stem.{container}").stat().st_mode) == 0o666 & ~umask


def open_below(folder: Path) -> list[Path]:
    """Files below a folder that this process has open."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(handle.readlink())
    return [path for path in found if path.is_relative_to(folder)]


@pytest.mark.parametrize("container", CONTAINERS)
def test_full_disk_keeps_neither_handles_nor_room_whenever_it_becomes_full(
    tmp_path: Path, container: AudioFormat
) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 30_000)).astype(np.float32)

    def make(folder: Path) -> Path:
        with AudioWriter(folder / f"stem.{container}", container, STEREO) as writer:
            writer.write(noise)
        return writer.path

    size = make(tmp_path).stat().st_size
    # At its beginning, in its middle, and of all but the last bytes.
    for number, pages in enumerate((0, size // 8192, (size - 1) // 4096)):
        with small_disk(tmp_path / f"disk-{number}", 4096 * max(1, pages)) as disk:
            if not pages:
                fill(disk / "full")
            free = os.statvfs(disk).f_bavail
            # The errors are kept, and with them what they refer to.
            kept = []
            for _ in range(3):
                with pytest.raises(UserError, match="No space left on device") as error:
                    make(disk)
                kept.append(error)
            assert open_below(disk) == []
            assert os.statvfs(disk).f_bavail == free
            assert [path.name for path in disk.iterdir()] == ([] if pages else ["full"])
