"""The model that stays loaded in a worker process."""

import functools
from pathlib import Path

from storage.registry import ModelRegistry
from vocsep.models.network import EngineName
from vocsep.separation.separator import Separator


def cached_separator(
    registry: Path,
    model: str,
    *,
    device: str = "auto",
    engine: EngineName = "torch",
    overlap: float = 0.0,
    wiener: bool = False,
) -> Separator:
    """Separator by registry folder and model name (see `Separator.load`), kept for this process's next song.

    It computes one block at a time: whoever has many songs has a process for each core.
    """
    if engine == "onnx":
        return _loaded(Path(model), registry, None, device, engine, overlap, wiener)
    opened = ModelRegistry(registry).open(model)
    digest = opened.description.get("weights_sha256")
    return _loaded(opened.path.resolve(), registry, digest, device, engine, overlap, wiener)


@functools.lru_cache(maxsize=2)
def _loaded(
    path: Path,
    registry: Path,
    digest: str | None,  # so that a moved champion is loaded anew
    device: str,
    engine: EngineName,
    overlap: float,
    wiener: bool,
) -> Separator:
    return Separator.load(path, registry, device=device, engine=engine, overlap=overlap, wiener=wiener, jobs=1)
