"""What the head of a report says of a model, in words: how it is made, and what it was trained on."""

import contextlib
import math
from typing import Any

_CHANNELS = {"1": "mono", "2": "stereo"}


def model_facts(description: dict[str, Any]) -> dict[str, str]:
    """Title to text, of everything that a model's description says, and says in the way that it should."""

    def text(*place: str, unit: str = "") -> str:
        value = at(description, *place)
        return value + unit if isinstance(value, str) else figure(number(value), unit)

    def figure(value: float | None, unit: str) -> str:
        return "" if value is None else f"{round(value, 2):.10g}{unit}"

    songs = [len(_list(description, "data", split)) for split in ("train", "valid")]
    sets = [name for one in _list(description, "recipe", "sets") if isinstance(name := at(one, "name"), str)]
    version, width = text("versions", "vocsep"), text("architecture", "width")
    loss, digest = text("objective", "loss"), text("data", "digest")
    facts = {
        "made": (text("created").replace("T", " "), version and f"vocsep {version}"),
        "network": (
            text("architecture", "name"),
            width and f"width {width}",
            _CHANNELS.get(text("architecture", "channels"), ""),
            " and ".join(target for target in _list(description, "targets") if isinstance(target, str)),
        ),
        "spectrogram": (
            text("spectrogram", "sample_rate", unit=" Hz"),
            text("spectrogram", "n_fft", unit=" points"),
            text("spectrogram", "hop_length", unit=" samples apart"),
        ),
        "training": (
            figure(training_total(description, "steps_done"), " steps"),
            figure(training_total(description, "seconds"), " s"),
            loss and f"loss {loss}",
            text("metrics", "valid_sdr_db", unit=" dB on the validation songs"),
        ),
        "training songs": (
            f"{songs[0]}, and {songs[1]} for validation" if any(songs) else "",
            ", ".join(sets) or text("data", "dataset"),
            digest and f"digest {digest[:16]}",
        ),
        "licence": (text("licence"),),
    }
    joined = {title: ", ".join(part for part in parts if part) for title, parts in facts.items()}
    return {title: fact for title, fact in joined.items() if fact}


def training_total(description: dict[str, Any], name: str) -> float | None:
    """A figure of a model's training and of those before it, from which a recipe's models start; None if unknown."""
    found = number(at(description, "training", name))
    for one in _list(description, "earlier_trainings"):
        earlier = number(at(one, name))
        found = None if found is None else number(found + (earlier or 0))
    return found


def at(value: Any, *place: str) -> Any:
    """What is at a place of nested dictionaries; None if there is no such place."""
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def number(value: Any) -> float | None:
    """A finite number as it is; None for all else."""
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return value
    return None


def _list(value: Any, *place: str) -> list[Any]:
    found = at(value, *place)
    return found if isinstance(found, list) else []
