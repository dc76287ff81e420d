"""The files of a song's folder: which of them are vocals, accompaniment and mixture, by their usual names."""

import re
from dataclasses import dataclass
from pathlib import Path

from storage.errors import UserError
from vocsep.audio.folders import is_sound

# Lower case, without blanks and punctuation.
_NAMES = {
    "vocals": {"vocals", "vocal", "vox", "voice", "acapella", "acappella", "accapella"},
    "accompaniment": {
        "accompaniment",
        "backingtrack",
        "inst",
        "instr",
        "instrumental",
        "instrumentalmix",
        "instrumentals",
        "karaoke",
        "minusone",
        "music",
        "novocal",
        "novocals",
        "playback",
    },
    "mixture": {
        "bounce",
        "finalmix",
        "full",
        "fullmix",
        "fullsong",
        "fulltrack",
        "master",
        "mastered",
        "mix",
        "mixdown",
        "mixed",
        "mixture",
        "original",
        "originalmix",
        "song",
        "stereomix",
    },
}


@dataclass(frozen=True)
class Stems:
    """The files of a song by what they are; without one of the whole accompaniment, it is all other stems."""

    vocals: Path | None
    accompaniment: tuple[Path, ...]
    mixture: Path | None


def stem_files(folder: Path) -> dict[str, Path]:
    """Audio files of a song's folder, by their names without suffix, in lower case.

    Raises
    ------
    UserError
        If two files have one name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_sound(path) and files.setdefault(path.stem.lower(), path) != path:
            raise _twice(path.stem.lower(), files[path.stem.lower()], path)
    return files


def song_stems(folder: Path) -> Stems:
    """The files of a song's folder by what they are; one that has the folder's own name is the mixture.

    Numbers before and behind a name, as programs give them, count for nothing.

    Raises
    ------
    UserError
        If two files are the same of these, or have one name.
    """
    found: dict[str, Path] = {}
    others: list[Path] = []
    for name, path in stem_files(folder).items():
        key = re.sub(r"[\W_]+", "", name)
        own = "mixture" if key == re.sub(r"[\W_]+", "", folder.name.lower()) else ""
        usual = key.strip("0123456789")
        kind = next((kind for kind, names in _NAMES.items() if usual in names), own)
        if not kind:
            others.append(path)
        elif found.setdefault(kind, path) != path:
            raise _twice(kind, found[kind], path)
    whole = found.get("accompaniment")
    return Stems(found.get("vocals"), (whole,) if whole else tuple(others), found.get("mixture"))


def _twice(kind: str, first: Path, second: Path) -> UserError:
    return UserError(f"{first.parent}: two files of {kind}, {first.name} and {second.name}; remove one of them")
