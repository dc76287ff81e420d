"""Singing-voice separation that you train yourself: one function per step, and `Separator` for waveforms.

Everything is imported at first use, so that `import vocsep` costs nothing.

Examples
--------
>>> import vocsep
>>> separator = vocsep.Separator.load("champion")  # doctest: +SKIP
>>> stems = separator.separate(waveform, sample_rate=44100)  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import version

    from storage.errors import UserError
    from vocsep.comparison.step import CompareConfig, compare
    from vocsep.evaluation.config import EvaluateConfig
    from vocsep.evaluation.step import evaluate
    from vocsep.mapping import SomeFailed
    from vocsep.preprocessing.step import PreprocessConfig, preprocess
    from vocsep.recipes.step import RecipeConfig, make_model
    from vocsep.retraining.step import RetrainConfig, retrain
    from vocsep.separation.separator import Separator
    from vocsep.separation.settings import SeparationSettings
    from vocsep.separation.step import SeparateConfig, separate
    from vocsep.training.config import TrainConfig
    from vocsep.training.step import TrainJob, train

    __version__ = version("vocsep")

__all__ = [
    "CompareConfig",
    "EvaluateConfig",
    "PreprocessConfig",
    "RecipeConfig",
    "RetrainConfig",
    "SeparateConfig",
    "SeparationSettings",
    "Separator",
    "SomeFailed",
    "TrainConfig",
    "TrainJob",
    "UserError",
    "__version__",
    "compare",
    "evaluate",
    "make_model",
    "preprocess",
    "retrain",
    "separate",
    "train",
]

_MODULES = {
    "storage.errors": ("UserError",),
    "vocsep.comparison.step": ("CompareConfig", "compare"),
    "vocsep.evaluation.config": ("EvaluateConfig",),
    "vocsep.evaluation.step": ("evaluate",),
    "vocsep.mapping": ("SomeFailed",),
    "vocsep.preprocessing.step": ("PreprocessConfig", "preprocess"),
    "vocsep.recipes.step": ("RecipeConfig", "make_model"),
    "vocsep.retraining.step": ("RetrainConfig", "retrain"),
    "vocsep.separation.separator": ("Separator",),
    "vocsep.separation.settings": ("SeparationSettings",),
    "vocsep.separation.step": ("SeparateConfig", "separate"),
    "vocsep.training.config": ("TrainConfig",),
    "vocsep.training.step": ("TrainJob", "train"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vocsep")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'vocsep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
