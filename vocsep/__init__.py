"""What is computed: audio, spectrograms, model, objective, training, evaluation, separation, command line.

>>> import vocsep  # doctest: +SKIP
>>> separator = vocsep.Separator.load("champion")  # doctest: +SKIP
>>> separator.separate_file("song.mp3", "separated")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocsep.separation.separator import Separator

__all__ = ["Separator"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: the command line starts without it.
    if name == "Separator":
        from vocsep.separation.separator import Separator

        return Separator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
