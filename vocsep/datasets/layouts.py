"""Datasets: where the songs are, which split they belong to, and how their sources are read.

An adapter only lists songs, by the splits of their folders and without ids yet; what a song's sources are made of is
data (`AudioSource`), so that one function, `read_sources`, reads all of them, on any machine that a `Song` is sent to.
"""

import importlib.util
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from storage.errors import InvalidInput, NotFound, UserError, escaped, one_line
from storage.manifest import SPLITS
from vocsep.audio.folders import find_files, is_hand_made, is_sound
from vocsep.audio.formats import STEM_SUFFIX
from vocsep.datasets.songs import AudioSource, Dataset, Song, hashed_share, song_key, track_id
from vocsep.datasets.stems import song_stems

Kind = Literal["musdb18", "musdb18-hq", "folder", "karaoke", "vocals", "accompaniment", "demo"]
DEMO_KIND = "demo"
DEMO_MARKER = "demo.json"
VALID_SHARE = 0.15
# Of MUSDB18-HQ: whose mixture is known not to be the sum of its stems.
MIXED_OTHERWISE = ("PR - Oh No",)


def open_dataset(root: Path, kind: str = "auto") -> Dataset:
    """List the songs of a dataset without opening any of them.

    Parameters
    ----------
    root
        Folder with `train/`, `test/` and perhaps `valid/`.
    kind
        `musdb18` (`<split>/<song>.stem.mp4`), `musdb18-hq` (`<split>/<song>/{mixture,drums,bass,other,vocals}.wav`),
        `folder` (`<split>/<song>/{vocals,accompaniment or other stems,mixture}.<any audio>`), `karaoke`
        (`[<split>/]<song>.<any audio>`, accompaniment in the left channel, voice in the right), `vocals` or
        `accompaniment` (any audio in any folder below, each a training song that has this source alone), or `auto`,
        which recognizes all but the last three.

    Raises
    ------
    UserError
        If the folder is missing, empty or not a dataset, or a song is in two splits.
    """
    kinds = ("auto", *get_args(Kind))
    if kind not in kinds:
        raise InvalidInput(f"{kind!r} is no kind of dataset; use {', '.join(kinds)}")
    if not root.is_dir():
        raise NotFound(f"{root}: no such dataset folder; give the folder that holds train/ and test/")
    if not _is_utf8(root.resolve()):
        raise UserError(f"{root}: its path is not UTF-8, as a store must name it; rename it")
    try:
        return _open(root.resolve(), kind)
    except OSError as error:
        raise one_line(root, "read", error) from None


def _open(root: Path, kind: str) -> Dataset:
    if kind == "auto":
        kind = DEMO_KIND if (root / DEMO_MARKER).is_file() else _recognize(root)
    problems: dict[str, str] = {}
    valid_names: set[str] = set()
    if kind in ("musdb18", "musdb18-hq", DEMO_KIND):
        setup = musdb_table()
        valid_names = set(setup["validation_tracks"])
        listed = list(_list_hq(root, setup, problems) if kind == "musdb18-hq" else _list_stems(root, setup))
    elif kind == "folder":
        listed = list(_list_folders(root, problems))
    elif kind == "karaoke":
        listed = list(_list_karaoke(root))
    else:
        listed = list(_list_sources(root, "vocals" if kind == "vocals" else "accompaniment"))
    listed = list(_distinct(listed, problems))
    skipped = tuple(escaped(str(path.relative_to(root))) for path in _skipped(root, kind, listed, problems))
    problems = {escaped(name): escaped(problem) for name, problem in problems.items()}
    if not listed and not problems:
        raise UserError(f"{root}: no songs found (looked for the layout of {kind})")
    return Dataset(kind, root, _with_splits(kind, root, listed, valid_names), problems, skipped)


def _recognize(root: Path) -> str:
    if not any(root.iterdir()):
        raise UserError(f"{root}: the dataset folder is empty")
    entries = [path for _, path in _entries(root)]
    if any(path.name.endswith(STEM_SUFFIX) for path in entries):
        return "musdb18"
    song_folders = [path for path in entries if path.is_dir()]
    hq = ("mixture.wav", "drums.wav", "bass.wav", "other.wav", "vocals.wav")
    if any(all((song / name).is_file() for name in hq) for song in song_folders):
        return "musdb18-hq"
    if any(is_sound(path) for song in song_folders for path in _readable(song)):
        return "folder"
    raise UserError(
        f"{root}: not a dataset; expected MUSDB18 (train/<song>.stem.mp4), MUSDB18-HQ or own songs "
        "(train/<song>/vocals.wav with accompaniment or mixture), or name the kind, as in --kind karaoke"
    )


def musdb_table() -> dict[str, Any]:
    """musdb's own table of stems, sources, targets and validation songs, from its package without importing it.

    The import asks for the program ffmpeg, which nothing here needs.
    """
    spec = importlib.util.find_spec("musdb")
    if spec is None or spec.origin is None:
        raise UserError("the package musdb is not installed; install it with `pip install musdb`")
    table: dict[str, Any] = yaml.safe_load(
        Path(spec.origin).with_name("configs").joinpath("mus.yaml").read_text("utf-8")
    )
    return table


def _list_stems(root: Path, setup: dict[str, Any]) -> Iterable[Song]:
    for split, path in _entries(root):
        if path.name.endswith(STEM_SUFFIX):
            parts = {name: AudioSource(path, stream=number) for name, number in setup["stem_ids"].items()}
            yield _musdb_song(path.name.removesuffix(STEM_SUFFIX), split, parts, setup)


def _list_hq(root: Path, setup: dict[str, Any], problems: dict[str, str]) -> Iterable[Song]:
    for split, folder in _entries(root):
        if not folder.is_dir():
            continue
        files = {name: AudioSource(folder / file) for name, file in setup["sources"].items()}
        files["mixture"] = AudioSource(folder / setup["mixture"])
        missing = [source.path.name for source in files.values() if not source.path.is_file()]
        if missing and not find_files(folder).sounds:
            continue  # put there by other programs
        if missing:
            problems[folder.name] = f"{folder}: {', '.join(missing)} missing"
        else:
            song = _musdb_song(folder.name, split, files, setup)
            yield replace(song, told_by_names=folder.name not in MIXED_OTHERWISE)


def _musdb_song(name: str, split: str, parts: dict[str, AudioSource], setup: dict[str, Any]) -> Song:
    vocals, band = (tuple(parts[part] for part in setup["targets"][target]) for target in ("vocals", "accompaniment"))
    return Song("", name, split, (parts["mixture"],), vocals, band)


def _list_folders(root: Path, problems: dict[str, str]) -> Iterable[Song]:
    for split, folder in _entries(root):
        if not folder.is_dir():
            continue
        try:
            stems = song_stems(folder)
        except (UserError, OSError) as error:
            problems[folder.name] = str(one_line(folder, "read", error))
            continue
        if stems.vocals is None and not find_files(folder).sounds:
            continue  # put there by other programs
        if stems.vocals is None:
            problems[folder.name] = f"{folder}: no vocals file; call the one with the voice vocals, as in vocals.wav"
        elif not stems.accompaniment and stems.mixture is None:
            problems[folder.name] = f"{folder}: vocals, but neither accompaniment, other stems nor mixture"
        else:
            vocals = (AudioSource(stems.vocals),)
            accompaniment = tuple(map(AudioSource, stems.accompaniment))
            mixture = (AudioSource(stems.mixture),) if stems.mixture else vocals + accompaniment
            yield Song("", folder.name, split, mixture, vocals, accompaniment, told_by_names=True)


def _list_karaoke(root: Path) -> Iterable[Song]:
    flat = [("train", path) for path in sorted(root.iterdir())]
    for split, path in _entries(root) + flat:
        if is_sound(path):
            band, voice = AudioSource(path, channel=0), AudioSource(path, channel=1)
            yield Song("", path.stem, split, (band, voice), (voice,), (band,))


def _list_sources(root: Path, source: Literal["vocals", "accompaniment"]) -> Iterable[Song]:
    for path in find_files(root).sounds:
        inside = path.relative_to(root)
        name = " - ".join((*inside.parent.parts, path.stem))
        yield Song("", name, "train", (AudioSource(path),), (), (), only=source)


def _entries(root: Path) -> list[tuple[str, Path]]:
    """Every entry of every split folder that people put there, as `(split, path)`, in order; `Train` is `train`."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    return [
        (split, path)
        for split in SPLITS
        for folder in folders
        if folder.name.lower() == split
        for path in sorted(folder.iterdir())
        if is_hand_made(path)
    ]


def _readable(folder: Path) -> list[Path]:
    """Entries of a folder; none if it cannot be read, which is told of its song."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _skipped(root: Path, kind: str, listed: list[Song], problems: Collection[str]) -> list[Path]:
    """What people put among the songs and is none: other files, and folders next to those of the splits."""
    if kind in ("vocals", "accompaniment"):
        return find_files(root).others
    sources = [source.path for song in listed for source in song.mixture + song.vocals + song.accompaniment]
    taken = {path for source in sources for path in (source, source.parent)}
    beside = [path for path in sorted(root.iterdir()) if path.is_dir() and is_hand_made(path)]
    entries = [path for _, path in _entries(root)] + [path for path in beside if path.name.lower() not in SPLITS]
    return [path for path in entries if path not in taken and path.name not in problems]


def _distinct(listed: list[Song], problems: dict[str, str]) -> Iterable[Song]:
    """Songs whose names can be stored and are their own within a split; the others become problems."""
    taken: dict[tuple[str, str], Path] = {}
    for song in listed:
        path = song.mixture[0].path
        first = taken.setdefault((song.split, song.name), path)
        shown = escaped(song.name)
        if shown != song.name:
            problems[shown] = f"{shown}: its name is not UTF-8 or not one line; rename it"
        elif odd := [source.path for source in song.mixture + song.vocals if not _is_utf8(source.path)]:
            problems[song.name] = f"{odd[0]}: its name is not UTF-8; rename it"
        elif first != path:
            problems[path.name] = f"{path}: has the name of {first}; rename or remove one"
        else:
            yield song


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_splits(kind: str, root: Path, listed: list[Song], valid_names: set[str]) -> tuple[Song, ...]:
    """Give every song its final split and id: validation songs are named by musdb, by a folder, or by a hash."""
    first: dict[str, Song] = {}
    for song in listed:
        other = first.setdefault(song_key(song.name), song)
        if other.split != song.split:
            raise UserError(
                f"{root}: song {song.name!r} of {song.split} is also in {other.split} ({other.name!r}); "
                "remove one, or the scores would be of songs that were trained on"
            )
    split_of = {song.name: song.split for song in listed}
    training = {name for name, split in split_of.items() if split == "train"}
    # Songs of one source can be learned from, but not scored.
    if "valid" not in split_of.values() and not all(song.only for song in listed):
        chosen = {song_key(name) for name in (valid_names & training) or hashed_share(training, VALID_SHARE)}
        split_of |= {name: "valid" for name in training if song_key(name) in chosen}
    return tuple(
        replace(song, id=track_id(kind, split_of[song.name], song.name), split=split_of[song.name]) for song in listed
    )
