"""Which files of a folder are sound, at any depth, and what in it nobody put there by hand."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from vocsep.audio.formats import AUDIO_SUFFIXES

# In lower case; in addition to all hidden entries. Archivers, file servers and waste baskets make these.
_MADE_BY_SYSTEMS = frozenset(
    (
        "$recycle.bin",
        "#archive",
        "#recycle",
        "#snapshot",
        "@__thumb",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@synoeastream",
        "@synoresource",
        "@tmp",
        "__macosx",
        "__pycache__",
        "lost+found",
        "lost.dir",
        "msocache",
        "network trash folder",
        "recycled",
        "recycler",
        "system volume information",
        "temporary items",
        "~snapshot",
    )
)
_FILES_OF_SYSTEMS = frozenset(("desktop.ini", "icon\r", "thumbs.db"))
_FOUND_BY_CHKDSK = re.compile(r"found\.\d{3}")


@dataclass
class Found:
    """What is in a folder and all folders below it: files of sound, and all else (folders that cannot be read)."""

    sounds: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def is_hand_made(path: Path) -> bool:
    """Whether an entry of a folder is one that people put there: not hidden, and not some system's own."""
    name = path.name.lower()
    is_of_a_system = name in _MADE_BY_SYSTEMS or name in _FILES_OF_SYSTEMS or _FOUND_BY_CHKDSK.fullmatch(name)
    return not (name.startswith(".") or is_of_a_system)


def is_sound(path: Path) -> bool:
    """Whether an entry of a folder is a file of sound, by the ending of its name."""
    return path.suffix.lower() in AUDIO_SUFFIXES and is_hand_made(path) and path.is_file()


def find_files(folder: Path) -> Found:
    """All files below a folder that people put there, in order; links to folders are followed, to each folder once."""
    found, seen = Found(), {folder.resolve()}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = [entry for entry in sorted(here.iterdir()) if is_hand_made(entry)]
        except OSError:
            found.others.append(here)
            continue
        for entry in entries:
            if entry.is_dir():
                if entry.resolve() not in seen:
                    seen.add(entry.resolve())
                    waiting.append(entry)
            elif is_sound(entry):
                found.sounds.append(entry)
            else:
                found.others.append(entry)
    found.sounds.sort()
    found.others.sort()
    return found
