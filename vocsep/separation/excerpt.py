"""A part of each song instead of the whole: from which second on, and how long."""

import re
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vocsep.audio.info import AudioInfo

_CLOCK = re.compile(r"(?:(?:(\d{1,3}):)?(\d{1,4}):)?(\d{1,7}(?:\.\d*)?|\.\d+)", re.ASCII)
_MOST_SECONDS = 1e6


def _seconds(value: Any) -> Any:
    """Seconds of a text such as 90, 90.5, 1:30 or 1:02:03.5; what is no text is left to pydantic."""
    if not isinstance(value, str):
        return value
    found = _CLOCK.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is not a time; give seconds or minutes:seconds, as in 90 or 1:30")
    hours, minutes, seconds = found.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=_MOST_SECONDS)]
"""Seconds as a number or as text, minutes and hours before colons."""


def excerpt_samples(sample_rate: int, start: float, duration: float | None) -> tuple[int, int | None]:
    """First sample of an excerpt and how many it has, at least one; None: all that follow.

    >>> excerpt_samples(44100, 0.5, 1.0)
    (22050, 44100)
    """
    first = round(start * sample_rate)
    return first, None if duration is None else max(1, round((start + duration) * sample_rate) - first)


def excerpt_info(info: AudioInfo, start: float, duration: float | None) -> AudioInfo:
    """What a file says of itself, but for the length, which is that of the excerpt."""
    left = max(0.0, info.seconds - start)
    return replace(info, seconds=left if duration is None else min(left, duration))


def excerpt_label(start: float, duration: float | None) -> str:
    """What follows a song's name in that of its excerpt; nothing for the whole song.

    >>> excerpt_label(60, 30), excerpt_label(1.5, None)
    (' 60-90 s', ' from 1.5 s')
    """
    if duration is not None:
        return f" {start:.10g}-{start + duration:.10g} s"
    return f" from {start:.10g} s" if start else ""
