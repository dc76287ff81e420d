"""What a report holds, as a reader finds it: its page, tables and pictures."""

import io
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds; fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.style = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def parsed_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def table_cells(line: str) -> list[str]:
    """Cells of one line of a markdown table, escaped pipes resolved."""
    cells, text = [""], line.strip().removeprefix("|").removesuffix("|")
    position = 0
    while position < len(text):
        if text.startswith("\\|", position):
            cells[-1] += "|"
            position += 2
        elif text[position] == "|":
            cells.append("")
            position += 1
        else:
            cells[-1] += text[position]
            position += 1
    return [cell.strip() for cell in cells]


def check_picture(path: Path | io.BytesIO) -> None:
    content = path.read_bytes() if isinstance(path, Path) else path.getvalue()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    pixels: NDArray[np.float32] = matplotlib.image.imread(io.BytesIO(content))
    assert min(pixels.shape[:2]) > 100
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 3
