"""Builds the wheel as one package, in which `flows` and `storage` are `vocsep.flows` and `vocsep.storage`.

Other projects have packages of these names, too. All else is setuptools as it is, editable installs above all: in a
clone the folders are what is imported.
"""

import ast
import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOMS = ("flows", "storage")
FILES = ("pyproject.toml", "README.md", "LICENSE")


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """The wheel, of a copy of the source tree in which the rooms are inside `vocsep`."""
    wheels = str(Path(wheel_directory).resolve())
    metadata = metadata_directory and str(Path(metadata_directory).resolve())
    with _one_package():
        name: str = build_meta.build_wheel(wheels, config_settings, metadata)
    return name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """The same for the metadata, which name the top-level packages."""
    metadata = str(Path(metadata_directory).resolve())
    with _one_package():
        name: str = build_meta.prepare_metadata_for_build_wheel(metadata, config_settings)
    return name


@contextlib.contextmanager
def _one_package() -> Iterator[None]:
    """Work in a copy of this folder, the source tree, that has one package."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in FILES:
            shutil.copy(name, tree)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree("vocsep", tree / "vocsep", ignore=ignored)
        for room in ROOMS:
            shutil.copytree(room, tree / "vocsep" / room, ignore=ignored)
        for path in tree.rglob("*.py"):
            path.write_bytes(inside_vocsep(path.read_bytes(), str(path.relative_to(tree))))
        deployments = Path("prefect.yaml").read_text(encoding="utf-8")
        (tree / "vocsep/flows/prefect.yaml").write_text(deployed_by_module(deployments), encoding="utf-8")
        with contextlib.chdir(tree):
            yield


def inside_vocsep(source: bytes, name: str) -> bytes:
    """A module with the rooms' names as they are inside `vocsep`, in imports and in strings that name modules.

    >>> inside_vocsep(b"from storage.errors import UserError\\n", "example")
    b'from vocsep.storage.errors import UserError\\n'

    Raises
    ------
    ValueError
        If it names a room in another way: `import storage.errors` would need all its uses changed.
    """
    places = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _room(node.module or ""):
            places.append((node.lineno - 1, node.col_offset + len("from ")))
        elif isinstance(node, ast.Import) and any(_room(alias.name) for alias in node.names):
            raise ValueError(f"{name}:{node.lineno}: import a room's modules with `from`; the wheel renames them")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _room(node.value, dotted=True):
            places.append((node.lineno - 1, node.col_offset + len('"')))
    lines = source.splitlines(keepends=True)
    for row, column in sorted(places, reverse=True):
        before, after = lines[row][:column], lines[row][column:]
        if not after.startswith(tuple(room.encode() for room in ROOMS)):
            raise ValueError(f"{name}:{row + 1}: names a room in a way that the wheel cannot rename")
        lines[row] = before + b"vocsep." + after
    return b"".join(lines)


def _room(name: str, dotted: bool = False) -> bool:
    """Whether a name is that of a room or a module in one; `dotted`: of a module, since a room is a word, too."""
    return re.fullmatch(rf"({'|'.join(ROOMS)})(\.\w+){'+' if dotted else '*'}", name) is not None


def deployed_by_module(deployments: str) -> str:
    """`prefect.yaml` with entry points that hold in any folder.

    >>> deployed_by_module("entrypoint: flows/train.py:train")
    'entrypoint: vocsep.flows.train.train'
    """
    return re.sub(r"entrypoint: flows/(\w+)\.py:(\w+)", r"entrypoint: vocsep.flows.\1.\2", deployments)
