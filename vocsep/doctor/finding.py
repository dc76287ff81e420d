"""What a check of the doctor says."""

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail"]
Curve = dict[str, list[float]]
Verdict = tuple[bool, Status, str]
"""Whether it applies, its status, its advice."""


@dataclass(frozen=True)
class Finding:
    """One check's answer.

    Attributes
    ----------
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
    values: dict[str, Any]
    curve: Curve


def judged(
    check: str, figure: str, *verdicts: Verdict, sound: str, values: dict[str, Any], curve: Curve | None = None
) -> Finding:
    """The finding with the first verdict that applies; where none does, it passes with the advice `sound`."""
    _, status, advice = next((verdict for verdict in verdicts if verdict[0]), (True, "pass", sound))
    return Finding(check, status, figure, advice, values, curve or {})
