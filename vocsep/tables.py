"""Tables as text, and figures for people."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

# Control letters, those that turn the direction of writing, and lone halves of letters.
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_MARKUP = re.compile(r"[\\`*_{}\[\]<>$~@#^]|&[#\w]+;|://|www\.", re.IGNORECASE)


def decibels(value: float | None) -> str:
    """A figure for people: two decimals, or a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.2f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """An interval for people, or nothing."""
    return "" if interval is None else f"{interval[0]:.2f} ... {interval[1]:.2f}"


def visible(text: str) -> str:
    """A text from elsewhere in one line, with spaces for line breaks and letters that cannot be seen."""
    seen = "".join(" " if unicodedata.category(letter) in _UNSEEN else letter for letter in text)
    return " ".join(seen.split())


def plain(text: str) -> str:
    """A name from elsewhere for markdown: as it is, or as code where it could be read as markup, a link or a formula.

    Line breaks and letters that cannot be seen become spaces.
    """
    name = visible(text)
    if not _MARKUP.search(name):
        return name
    # In a table, a backslash before a pipe would end the cell in some readers.
    name = name.replace("\\|", "\\¦")
    fence = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    return f"{fence} {name} {fence}"


def plain_rows(rows: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows of a table whose cells are shown as markdown."""
    return [{name: plain(cell) for name, cell in row.items()} for row in rows]


def spreadsheet_cell(text: str) -> str:
    """A name from elsewhere for a CSV file: one that a spreadsheet would compute is marked as text."""
    # Some spreadsheets compute what begins with the wide forms of these letters, too.
    first = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return f"'{text}" if first in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n") else text


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A markdown table; pipes in cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    ruled = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """A table for a terminal of any width: columns as wide as their widest cell."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
