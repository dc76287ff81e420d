"""Tables as text, and figures for people."""

import math
from collections.abc import Sequence


def decibels(value: float | None) -> str:
    """A figure for people: two decimals, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """An interval for people, or nothing."""
    return "" if interval is None else f"{interval[0]:.2f} ... {interval[1]:.2f}"


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A markdown table; pipes in cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    ruled = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """A table for a terminal of any width: columns as wide as their widest cell."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
