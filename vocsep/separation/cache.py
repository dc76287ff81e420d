"""The model that stays loaded in a process that separates several songs."""

import functools
from pathlib import Path
from typing import Any

from vocsep.models.registry import open_registry
from vocsep.separation.separator import Separator
from vocsep.separation.settings import SeparationSettings


def cached_separator(models: Path, settings: SeparationSettings, threads: int | None = 1) -> Separator:
    """Separator by registry folder and settings (see `Separator.load`), kept for this process's next song."""
    choices = tuple(settings.model_dump(include={"device", "precision", "engine", "overlap", "wiener"}).items())
    if settings.engine == "onnx":
        return _loaded(Path(settings.model), models, None, choices, threads)
    opened = open_registry(models).open(settings.model)
    return _loaded(opened.path.resolve(), models, opened.description.get("weights_sha256"), choices, threads)


@functools.lru_cache(maxsize=2)
def _loaded(
    path: Path,
    models: Path,
    digest: str | None,  # so that a moved champion is loaded anew
    choices: tuple[tuple[str, Any], ...],
    threads: int | None,
) -> Separator:
    return Separator.load(path, models, jobs=threads, **dict(choices))
