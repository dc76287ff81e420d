"""What a check of the doctor says."""

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One check's answer.

    Attributes
    ----------
    check
        Its name.
    status
        `fail` for what keeps a training from working, `warn` for what may harm it.
    figure
        What was measured, in words.
    advice
        One sentence: what it means, or what to do.
    values
        The same figures for programs.
    curve
        Points of a picture, by the name of the axis.
    """

    check: str
    status: Status
    figure: str
    advice: str
    values: dict[str, Any] = field(default_factory=dict)
    curve: dict[str, list[float]] = field(default_factory=dict)


def worst(*statuses: Status) -> Status:
    """The gravest of several."""
    order: tuple[Status, ...] = ("pass", "warn", "fail")
    return max(statuses, key=order.index)
