"""The documentation as a site: built without a warning, complete, and asking nothing from outside."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import vocsep
from vocsep.cli.main import OTHERS
from vocsep.cli.serving import SERVING
from vocsep.cli.steps import STEPS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    return folder


class Requests(HTMLParser):
    """Addresses that a browser asks by itself when it shows a page: links that people follow are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"src", "srcset", "poster", "data", *(("href",) if tag in ("link", "use", "image") else ())}
        self.found += [value or "" for name, value in attrs if name in names]


def is_outside(address: str) -> bool:
    return re.match(r"\s*(https?:)?//", address) is not None


def test_the_site_asks_nothing_from_outside(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        requests = Requests()
        requests.feed(page.read_text("utf-8"))
        assert [address for address in requests.found if is_outside(address)] == [], page
        # What the theme's script would fetch for these.
        assert 'class="mermaid"' not in page.read_text("utf-8")
    for sheet in site.rglob("*.css"):
        addresses = re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", sheet.read_text("utf-8"))
        assert [address for address in addresses if is_outside(address)] == [], sheet


def test_the_reference_has_every_command_setting_and_export(site: Path) -> None:
    pages = {name: (site / f"reference/{name}.html").read_text("utf-8") for name in ("cli", "settings", "api")}
    for command in [*STEPS, *SERVING, *OTHERS]:
        assert f"vocsep {command}" in pages["cli"]
    for name in vocsep.__all__:
        if name != "__version__":
            assert f'id="vocsep.{name}"' in pages["api"]
            kind = getattr(vocsep, name)
            for field in getattr(kind, "model_fields", ()):
                assert f"<code>{field}</code>" in pages["settings"]
