"""The step `separate`: files and folders of songs to the files of their stems."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from storage.errors import UserError
from vocsep.config import Settings
from vocsep.mapping import Map, Outcome, SomeFailed, serial
from vocsep.models.registry import open_registry
from vocsep.paths import MODELS, SEPARATED
from vocsep.progress import Progress
from vocsep.separation.outputs import inputs_to_separate
from vocsep.separation.settings import SeparationSettings
from vocsep.separation.unfinished import made_folders

FIGURES = ("sample_rate", "channels", "seconds", "wall_seconds", "clipped_samples", "gain")


class SeparateConfig(Settings):
    """Which songs, where to, with which model and how."""

    inputs: tuple[Path, ...] = Field(min_length=1, description="Audio files, and folders that are searched for them.")
    output: Path = Field(default=SEPARATED, description="Folder for the stems.")
    models: Path = Field(default=MODELS, description="Model registry.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="Blocks of a song computed at a time, in this process (default: cores, up to 4).",
    )
    workers: int | None = Field(default=None, ge=1, description="Songs at a time, each in a process of one thread.")
    settings: SeparationSettings = SeparationSettings()


@dataclass(frozen=True)
class SeparateResult:
    """What was written: one record per song, in the order of the inputs, as `--json` prints it, and its line."""

    output: str
    songs: tuple[dict[str, Any], ...]
    text: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        return list(self.text)

    def to_json(self) -> list[dict[str, Any]]:
        """One record per song."""
        return list(self.songs)


def check(config: SeparateConfig) -> None:
    """Raise `UserError` if the model or all files are missing, or two songs would write the same stems."""
    inputs_to_separate(config.inputs, config.output, config.settings.name)
    if config.settings.engine == "torch":
        open_registry(config.models).open(config.settings.model)


def separate(config: SeparateConfig, *, progress: Progress | None = None, map: Map = serial) -> SeparateResult:
    """Separate songs; existing stems are left as they are, unless the settings say `overwrite`.

    Parameters
    ----------
    progress
        Called with the songs that are done, of how many; in this process parts of songs count as well.
    map
        What songs are spread over; each is read and written where it runs.

    Raises
    ------
    UserError
        If the model or all files are missing, or the only song cannot be separated.
    SomeFailed
        If some songs could not be separated, or some inputs are missing; all else is done.

    Examples
    --------
    >>> from pathlib import Path
    >>> separate(SeparateConfig(inputs=(Path("song.mp3"),))).lines()  # doctest: +SKIP
    """
    check(config)
    inputs = inputs_to_separate(config.inputs, config.output, config.settings.name)
    songs = inputs.songs
    settings, finished = config.settings, 0
    if settings.engine == "torch":
        # One model for all songs, even if the champion moves meanwhile.
        model = open_registry(config.models).open(settings.model)
        settings = settings.model_copy(update={"model": str(model.path.resolve())})

    def on_part(done: float, total: float) -> None:
        if progress is not None:
            progress(finished + min(1.0, done / max(total, 1e-9)), len(songs))

    def on_outcome(outcome: Outcome[Path, dict[str, Any]], count: int) -> None:
        nonlocal finished
        finished = count
        on_part(0.0, 1.0)

    output, models, separate_song = config.output, config.models, separate_one
    if map is serial:
        separate_song = partial(separate_one, progress=on_part, threads=config.threads)
    else:
        # Another process may work in another folder.
        output, models, *songs = (path.resolve() for path in (output, models, *songs))
    # Made here: of several processes, none may take it away when its song fails.
    with made_folders([config.output]):
        outcomes = map(separate_song, songs, (output, models, settings), on_outcome=on_outcome)
    # By their paths: files in two folders may have one name.
    failures = inputs.problems | {str(outcome.item): outcome.error for outcome in outcomes if outcome.error is not None}
    total = len(inputs.problems) + len(songs)
    if failures and total == 1:
        raise UserError(next(iter(failures.values())))
    ordered = sorted(outcomes, key=lambda outcome: songs.index(outcome.item))
    records = [outcome.result or _failed(str(outcome.item), outcome.error) for outcome in ordered]
    records += [_failed(entry, problem) for entry, problem in inputs.problems.items()]
    text = [record.pop("line") for record in records if "line" in record] + inputs.lines()
    result = SeparateResult(str(config.output), tuple(records), tuple(text))
    if failures:
        raise SomeFailed(failures, total, "files", result)
    return result


def _failed(entry: str, problem: str | None) -> dict[str, Any]:
    return {"input": entry, "state": "failed", "error": problem}


def separate_one(
    path: Path,
    output: Path,
    models: Path,
    settings: SeparationSettings,
    progress: Progress = lambda done, total: None,
    threads: int | None = 1,
) -> dict[str, Any]:
    """Separate one file; the model stays loaded for this process's next one."""
    from vocsep.separation.cache import cached_separator
    from vocsep.separation.files import separate_file

    separator = cached_separator(models, settings, threads)
    result = separate_file(path, output, separator, settings, progress)
    return {
        "input": str(result.path),
        "state": "separated" if result.is_new else "already there",
        "outputs": {stem: str(file) for stem, file in result.outputs.items()},
        "picture": str(result.picture) if result.picture else None,
        "page": str(result.page) if result.page else None,
        **{name: getattr(result, name) for name in FIGURES},
        "line": result.line(),
    }
