"""Pages of templates, with the style and the scripts that they need inside."""

import base64
import hashlib
import re
from importlib import resources
from typing import Any

import jinja2

_SCRIPTS = ("dom.js", "lanes.js", "sound.js", "listen.js")


def rendered(template: str, **values: Any) -> str:
    """The page that a template of vocsep gives, named by its path in the package; all values are escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: (resources.files("vocsep") / name).read_text(encoding="utf-8")),
    )
    environment.filters["embedded"] = lambda content: base64.b64encode(content).decode("ascii")
    return environment.get_template(template).render(style=_static("common.css"), script=player_script(), **values)


def player_script() -> str:
    """What runs in a page with players: the modules that the page in the browser has, in one without imports."""
    return "".join(re.sub(r"^import .*\n", "", _static(name), flags=re.MULTILINE) for name in _SCRIPTS)


def player_script_hash() -> str:
    """The script as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(player_script().encode()).digest()).decode("ascii")


def _static(name: str) -> str:
    return (resources.files("vocsep.html") / "static" / name).read_text(encoding="utf-8")
