"""Music from Debian's packages."""

import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

from storage.errors import UserError
from storage.files import writing_folder
from vocsep.audio.formats import AUDIO_SUFFIXES

# Below are sounds of doors and swords, not songs.
SMALLEST_SONG_BYTES = 600_000


def fetch_music(packages: Sequence[str], folder: Path) -> Path:
    """The sound files of Debian packages in `folder`, a folder for each package; existing ones stay.

    Archives of games (`.pk3`) inside the packages are looked into. Nothing is installed.

    Raises
    ------
    UserError
        If apt is not here, or a package cannot be fetched or holds no music.
    """
    for package in packages:
        if (folder / package).is_dir():
            continue
        # The commands run inside of it.
        unpacked = (folder / f".unpacked-{package}").absolute()
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        try:
            _run(["apt-get", "download", "--quiet", package], unpacked)
            for archive in unpacked.glob("*.deb"):
                _run(["dpkg-deb", "--extract", str(archive), str(unpacked)], unpacked)
            with writing_folder(folder / package) as songs:
                if not _copy_songs(unpacked, songs):
                    raise UserError(f"{package}: contains no sound file of {SMALLEST_SONG_BYTES / 1e6:g} MB or more")
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
    return folder


def _copy_songs(unpacked: Path, songs: Path) -> int:
    count = 0
    for path in sorted(unpacked.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.suffix.lower() in AUDIO_SUFFIXES and path.stat().st_size >= SMALLEST_SONG_BYTES:
            count += 1
            shutil.copy(path, songs / f"{count:04d}-{path.name}")
        elif path.suffix == ".pk3":
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    inside = Path(entry.filename)
                    if inside.suffix.lower() in AUDIO_SUFFIXES and entry.file_size >= SMALLEST_SONG_BYTES:
                        count += 1
                        with archive.open(entry) as source, (songs / f"{count:04d}-{inside.name}").open("wb") as target:
                            shutil.copyfileobj(source, target)
    return count


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not on this machine; packages are fetched on Debian and Ubuntu") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{' '.join(command)}: failed ({reason})") from None
