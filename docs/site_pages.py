"""Pages of the site that are made while it is built: the reference, from the code, and files from outside docs/.

A hook of MkDocs; see mkdocs.yml. Nothing that it makes is written into docs/.
"""

import importlib
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic.fields import FieldInfo

import vocsep
from vocsep.cli.main import app
from vocsep.config import Settings

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE.txt",
    "recipes/bundled.yaml": "bundled.yaml",
    "vocsep/models/bundled/README.md": "bundled-model.md",
}
"""Files of the repository that the site contains too, and their places there."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not contain."""
    generated = {"reference/cli.md": cli_page, "reference/settings.md": settings_page, "reference/api.md": api_page}
    for place, page in generated.items():
        files.append(File.generated(config, place, content=page()))
    for source, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the site has what they name; as written they are right in the repository."""
    place = page.file.src_uri
    source = {there: here for here, there in OUTSIDE.items()}.get(place, f"docs/{place}")

    def moved(link: re.Match[str]) -> str:
        path, anchor = link["path"], link["anchor"] or ""
        target = os.path.normpath(PurePosixPath(source).parent / path)
        there = OUTSIDE.get(target) or target.removeprefix("docs/")
        return f"]({os.path.relpath(there, PurePosixPath(place).parent)}{anchor})"

    return re.sub(r"\]\((?P<path>[^():#\s]+)(?P<anchor>#[^)\s]*)?\)", moved, markdown)


def api_page() -> str:
    """What `import vocsep` offers, by mkdocstrings; the fields of settings are on a separate page."""
    lines = [
        "# Python",
        "",
        "`import vocsep` offers one function per step, each with one settings object, and `Separator` for waveforms. "
        "The fields of the settings are listed in [settings](settings.md).",
    ]
    names = [name for name in vocsep.__all__ if not name.startswith("_")]
    for name in sorted(names, key=lambda name: (not name.islower(), name.endswith("Config"), name)):
        exported = getattr(vocsep, name)
        is_settings = isinstance(exported, type) and issubclass(exported, Settings)
        lines += ["", f"::: vocsep.{name}"]
        if is_settings:
            lines += ["    options:", "      members: false", "      show_signature: false"]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with its arguments and options, as the program itself knows them."""
    lines = [
        "# Command line",
        "",
        "`vocsep COMMAND --help` says the same. Exit codes: 0 when all is done, 1 when some songs failed or a check "
        "did, 2 for a mistake in one line, 128 + n after signal n. `python -m flows STEP` takes the same options as "
        "`vocsep STEP` and runs the step with Prefect and Dask.",
    ]
    for name, command, context in commands():
        lines += ["", f"## {name}", "", cell(command.help or "")]
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        lines += ["", "```text", usage, "```", "", "| option | meaning |", "|---|---|"]
        lines += [option_row(parameter, context) for parameter in command.params]
    return "\n".join(lines) + "\n"


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Full name, command and context of every command, those of groups too."""
    root: Any = typer.main.get_command(app)
    yield from _commands(root, root.make_context("vocsep", [], resilient_parsing=True), "vocsep")


def _commands(group: Any, context: Any, above: str) -> Iterator[tuple[str, Any, Any]]:
    for name in group.list_commands(context):
        command = group.resolve_command(context, [name])[1]
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner, f"{above} {name}")
        else:
            yield f"{above} {name}", command, inner


def option_row(parameter: Any, context: Any) -> str:
    """A parameter as a row, by what `--help` says of it."""
    names, text = parameter.get_help_record(context)
    return f"| `{names.replace('|', '&#124;')}` | {cell(text)} |"


def settings_page() -> str:
    """Every class of settings with its fields."""
    lines = [
        "# Settings",
        "",
        "Each step has one settings object; a field of it is an option of the command, a key of the YAML file given "
        "with `--config`, and a parameter of the deployment. Unknown names are errors.",
    ]
    for kind in settings_classes():
        first = (kind.__doc__ or "").strip().partition("\n\n")[0]
        lines += ["", f"## {kind.__name__}", "", f"`{kind.__module__}`", "", cell(first), ""]
        lines += ["| name | type | default | meaning |", "|---|---|---|---|"]
        lines += [field_row(name, field) for name, field in kind.model_fields.items()]
    return "\n".join(lines) + "\n"


def settings_classes() -> list[type[Settings]]:
    """All that people set; what the page's browser sends is between the two of them."""
    for module in pkgutil.walk_packages(vocsep.__path__, "vocsep."):
        if not module.name.startswith("vocsep.page") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[Settings]] = []
    pending: list[type[Settings]] = [Settings]
    while pending:
        kinds = pending.pop().__subclasses__()
        pending += kinds
        found += [kind for kind in kinds if not kind.__module__.startswith("vocsep.page")]
    order = ("Config", "Job")
    return sorted(set(found), key=lambda kind: (not kind.__name__.endswith(order), kind.__name__))


def field_row(name: str, field: FieldInfo) -> str:
    """A field as a row."""
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        shown = "required"
    elif isinstance(default, Settings):
        shown = f"[{type(default).__name__}](#{type(default).__name__.lower()})"
    else:
        shown = f"`{', '.join(map(str, default)) or 'none'}`" if isinstance(default, tuple) else f"`{default}`"
    limits = ", ".join(
        f"{sign} {getattr(one, key)}" for one in field.metadata for key, sign in LIMITS if hasattr(one, key)
    )
    kind = cell(type_name(field.annotation)) + (f", {limits}" if limits else "")
    return f"| `{name}` | {kind} | {shown} | {cell(field.description or '')} |"


LIMITS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def type_name(annotation: Any) -> str:
    """A type as people write it, without the modules."""
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    return re.sub(r"\b(?:\w+\.)+(\w)", r"\1", text)


def cell(text: str) -> str:
    """Text escaped for a table of Markdown."""
    text = re.sub(r"([|*_\[\]])", r"\\\1", text.replace("<", "&lt;").replace(">", "&gt;"))
    return re.sub(r"\s+", " ", text).strip()
