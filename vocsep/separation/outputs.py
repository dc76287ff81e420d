"""Which files are separated, and what their stems are called."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from storage.errors import UserError, one_line
from vocsep.audio.formats import AUDIO_SUFFIXES

OUTPUT_FIELDS = ("track", "stem", "folder", "suffix")
PICTURE = "spectrograms"


def output_path(song: Path, stem: str, output: Path, name: str, container: str) -> Path:
    """File for one stem (or picture) of a song.

    Raises `UserError` if the file would lie outside `output`.

    Parameters
    ----------
    name
        Template with `{track}` (the song's name without its ending), `{stem}`, `{folder}` (that the song lies in) and
        `{suffix}` (the ending, without its point).
    """
    fields = {"track": song.stem, "stem": stem, "folder": song.resolve().parent.name, "suffix": song.suffix[1:]}
    for field in OUTPUT_FIELDS:
        # Not str.format, to which a name could give orders; braces in a song's own name stay as they are.
        name = name.replace("{" + field + "}", fields[field].replace("{", "\0"))
    path = output / f"{name.replace(chr(0), '{')}.{container}"
    if not path.resolve().is_relative_to(output.resolve()) or ".." in path.relative_to(output).parts:
        raise UserError(f"{song}: its stems would lie outside {output}; give another --name")
    return path


def output_paths(song: Path, stems: Sequence[str], output: Path, name: str, container: str) -> dict[str, Path]:
    """Stem to file.

    Raises `UserError` if a file would lie outside `output` or replace the song itself.
    """
    paths = {stem: output_path(song, stem, output, name, container) for stem in stems}
    for path in paths.values():
        if path.resolve() == song.resolve():
            raise UserError(f"{song}: the output would replace the input; give another output folder")
    return paths


def inputs_to_separate(inputs: Iterable[Path], output: Path, name: str = "{track}/{stem}") -> list[Path]:
    """The files named, and the audio files anywhere below the folders named, in order, but none in `output`.

    Raises `UserError` if an input does not exist, a folder holds no audio files, or two files would have the same
    outputs.
    """
    files: list[Path] = []
    for entry in inputs:
        try:
            if entry.is_dir():
                inside = sorted(path for path in entry.rglob("*") if _is_input(path, output))
                if not inside:
                    raise UserError(f"{entry}: no audio files in this folder")
                files += inside
            elif entry.exists():
                files.append(entry)
            elif str(entry) == "-":
                raise UserError("-: standard input cannot be separated; save its sound as a file first")
            else:
                raise UserError(f"{entry}: no such file or folder")
        except OSError as error:
            raise one_line(entry, "read", error) from None
    files = list({path.resolve(): path for path in reversed(files)}.values())[::-1]  # each once, where first named
    by_output: dict[Path, Path] = {}
    for path in files:
        other = by_output.setdefault(output_path(path, "", output, name, ""), path)
        if other != path:
            raise UserError(
                f"{path}: would get the same outputs as {other}; separate them one by one, or give a --name with "
                "{folder} or {suffix}"
            )
    return files


def _is_input(path: Path, output: Path) -> bool:
    """Whether a file found in a folder is a song, and not a stem that an earlier run wrote."""
    hidden = path.name.startswith(".")
    is_audio = path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES and not hidden
    return is_audio and not path.resolve().is_relative_to(output.resolve())
