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
    "preprocess",
    "retrain",
    "separate",
    "train",
]

_HOMES = {
    "CompareConfig": "vocsep.comparison.step",
    "EvaluateConfig": "vocsep.evaluation.config",
    "PreprocessConfig": "vocsep.preprocessing.step",
    "RetrainConfig": "vocsep.retraining.step",
    "SeparateConfig": "vocsep.separation.step",
    "SeparationSettings": "vocsep.separation.settings",
    "Separator": "vocsep.separation.separator",
    "SomeFailed": "vocsep.mapping",
    "TrainConfig": "vocsep.training.config",
    "TrainJob": "vocsep.training.step",
    "UserError": "storage.errors",
    "compare": "vocsep.comparison.step",
    "evaluate": "vocsep.evaluation.step",
    "preprocess": "vocsep.preprocessing.step",
    "retrain": "vocsep.retraining.step",
    "separate": "vocsep.separation.step",
    "train": "vocsep.training.step",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vocsep")
    if name not in _HOMES:
        raise AttributeError(f"module 'vocsep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
