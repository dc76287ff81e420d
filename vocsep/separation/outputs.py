"""Which files are separated, and what their stems are called."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import UserError, one_line
from vocsep.audio.folders import find_files
from vocsep.audio.formats import STEM_SUFFIX

OUTPUT_FIELDS = ("track", "stem", "folder", "suffix")
PICTURE, PAGE = "spectrograms", "listen"


def output_path(song: Path, stem: str, output: Path, name: str, container: str) -> Path:
    """File for one stem (or picture) of a song.

    Raises `UserError` if the file would be outside `output`.

    Parameters
    ----------
    name
        Template with `{track}` (the song's name without its ending), `{stem}`, `{folder}` (that the song is in) and
        `{suffix}` (the ending, without its point).
    """
    track = song.name.removesuffix(STEM_SUFFIX) if song.name.endswith(STEM_SUFFIX) else song.stem
    fields = {"track": track, "stem": stem, "folder": song.resolve().parent.name, "suffix": song.suffix[1:]}
    for part in OUTPUT_FIELDS:
        # Not str.format, to which a name could give orders; braces in a song's own name stay as they are.
        name = name.replace("{" + part + "}", fields[part].replace("{", "\0"))
    path = output / f"{name.replace(chr(0), '{')}.{container}"
    if not path.resolve().is_relative_to(output.resolve()) or ".." in path.relative_to(output).parts:
        raise UserError(f"{song}: its stems would be outside {output}; give another --name")
    return path


def output_paths(song: Path, stems: Sequence[str], output: Path, name: str, container: str) -> dict[str, Path]:
    """Stem to file.

    Raises `UserError` if a file would be outside `output` or replace the song itself.
    """
    paths = {stem: output_path(song, stem, output, name, container) for stem in stems}
    for path in paths.values():
        if path.resolve() == song.resolve():
            raise UserError(f"{song}: the output would replace the input; give another output folder")
    return paths


@dataclass
class Inputs:
    """The songs that inputs name, in order; why others give none; and what in their folders is no song."""

    songs: list[Path] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What was left out, for people: how many files, by their endings."""
        if not self.others:
            return []
        endings = Counter(path.suffix if path.suffix[1:].isalnum() else "others" for path in self.others)
        return [f"left out, no sound: {', '.join(f'{count} {ending}' for ending, count in endings.most_common())}"]


def inputs_to_separate(inputs: Iterable[Path], output: Path, name: str = "{track}/{stem}") -> Inputs:
    """The files named, and the audio files anywhere below the folders named, in order, but none in `output`.

    Raises `UserError` if no input gives a song, or two files would have the same outputs.
    """
    found = Inputs()
    for entry in inputs:
        try:
            if entry.is_dir():
                inside = find_files(entry)
                songs = [path for path in inside.sounds if not _is_in(path, output)]
                found.songs += songs
                found.others += [path for path in inside.others if not _is_in(path, output)]
                if not songs:
                    found.problems[str(entry)] = f"{entry}: no audio files in this folder"
            elif entry.exists():
                found.songs.append(entry)
            elif str(entry) == "-":
                found.problems[str(entry)] = "-: standard input cannot be separated; save its sound as a file first"
            else:
                found.problems[str(entry)] = f"{entry}: no such file or folder"
        except OSError as error:
            found.problems[str(entry)] = str(one_line(entry, "read", error))
    if not found.songs:
        raise UserError("; ".join(found.problems.values()))
    # Each once, where first named.
    found.songs = list({path.resolve(): path for path in reversed(found.songs)}.values())[::-1]
    by_output: dict[Path, Path] = {}
    for path in found.songs:
        other = by_output.setdefault(output_path(path, "", output, name, ""), path)
        if other != path:
            raise UserError(
                f"{path}: would get the same outputs as {other}; separate them one by one, or give a --name with "
                "{folder} or {suffix}"
            )
    return found


def _is_in(path: Path, folder: Path) -> bool:
    """Whether a file is in a folder, as a stem that an earlier run wrote."""
    return path.resolve().is_relative_to(folder.resolve())
