"""Songs: their sources, splits and ids."""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class AudioSource:
    """One audio stream of a file, or one channel of it."""

    path: Path
    stream: int = 0
    channel: int | None = None


@dataclass(frozen=True)
class Song:
    """A song and what its sources are made of; each source is the sum of its parts.

    An empty `accompaniment` means: mixture minus vocals. A song of which there is `only` one source has it as its
    mixture, and nothing else. Where files are told by their names alone, how they add up is checked as they are read.
    """

    id: str
    name: str
    split: str
    mixture: tuple[AudioSource, ...]
    vocals: tuple[AudioSource, ...]
    accompaniment: tuple[AudioSource, ...]
    only: Literal["vocals", "accompaniment"] | None = None
    told_by_names: bool = False

    @property
    def feature_paths(self) -> list[Path]:
        """Files that the song's spectrograms are made from."""
        return sorted({source.path for source in self.mixture + self.vocals})


@dataclass(frozen=True)
class Dataset:
    """Songs of one root folder; `problems` says of songs that cannot be used why not.

    What of the folder was taken for no song is `skipped`, relative to it.
    """

    kind: str
    root: Path
    songs: tuple[Song, ...]
    problems: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def split(self, name: str) -> list[Song]:
        """Songs of one split, in order of their names."""
        return sorted((song for song in self.songs if song.split == name), key=lambda song: song.name)


def song_key(name: str) -> str:
    """What two names of one song have in common, however they are spelt: case, blanks and accents of one form.

    >>> song_key("Cafe\u0301  Song ") == song_key("CAF\u00c9 song")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", " ".join(name.split())).casefold())


def same_files(first: Collection[str], second: Collection[str]) -> bool:
    """Whether two songs are one, by the digests of all their files; songs may share some, as a silent voice."""
    return bool(first) and bool(second) and (set(first) <= set(second) or set(second) <= set(first))


def hashed_share(names: Iterable[str], share: float) -> set[str]:
    """`share` of `names`, at least one of two or more, chosen by a hash of the name alone."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    count = max(1, round(share * len(ordered))) if len(ordered) > 1 else 0
    return set(ordered[:count])


def track_id(kind: str, split: str, name: str) -> str:
    """Short slug of a song's name plus a hash of dataset, split and name: a safe, distinct file name.

    >>> track_id("musdb18", "train", "Café / Zoë – Où?")
    'cafe-zoe-ou-19f97f0f43'
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:40].strip("-") or "song"
    return f"{slug}-{hashlib.sha256('/'.join((kind, split, name)).encode()).hexdigest()[:10]}"
