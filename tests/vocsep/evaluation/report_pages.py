"""What a report holds, as a reader finds it: its page, tables and pictures."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import soundfile
from numpy.typing import NDArray

from vocsep.html.pages import player_script

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
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
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
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def players(self) -> list[Any]:
        """What the players of the page hold."""
        return [json.loads(script) for script in self.scripts if script.startswith("{")]


def assert_self_contained(page: Page) -> None:
    """Nothing is loaded from elsewhere, and nothing is run but the script of the players."""
    sounding = bool(page.players)
    kinds = [attributes["type"] for attributes in page.attributes("script")]
    assert kinds == ["application/json"] * len(page.players) + ["module"] * sounding
    assert all(set(attributes) == {"type"} for attributes in page.attributes("script"))
    if sounding:
        assert page.scripts[-1] == player_script()
    assert not {"link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"} & {
        tag for tag, _ in page.tags
    }
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("href", "srcset", "data", "action", "poster", "background", "style")
            if name == "src":
                assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+=*", value or "")
    for loading in ("url(", "@import", "http:", "https:", "//"):
        assert loading not in page.style
    for player in page.players:
        for track in player["tracks"]:
            assert re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*", track["picture"])
            assert all(re.fullmatch(r"[A-Za-z0-9+/]+=*", piece) for piece in track["pieces"])


def played(player: Any, name: str) -> NDArray[np.float32]:
    """`(channels, samples)` of a lane of a player, as an mp3 reader decodes its pieces, without their margins."""
    (track,) = [track for track in player["tracks"] if track["name"] == name]
    parts, left = [], player["frames"]
    for piece in track["pieces"]:
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(piece)), dtype="float32", always_2d=True)
        assert rate == player["sampleRate"]
        frames = min(left, rate * player["pieceSeconds"])
        assert samples.shape == (frames + 2 * player["margin"], player["channels"])
        parts.append(samples[player["margin"] : player["margin"] + frames].T)
        left -= frames
    assert left == 0
    joined: NDArray[np.float32] = np.concatenate(parts, axis=1)
    return joined


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


def as_json(value: Any) -> Any:
    """A value as it comes back from a file of strict JSON."""
    return json.loads(json.dumps(value, allow_nan=False))
