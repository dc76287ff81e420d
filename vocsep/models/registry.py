"""The models of a folder, and the one that comes with vocsep."""

from pathlib import Path

from storage.registry import ModelRegistry

BUNDLED = Path(__file__).resolve().with_name("bundled")
"""Folder of the trained model in the package."""


def open_registry(path: Path) -> ModelRegistry:
    """Registry of the models in a folder; until one of them is the champion, the bundled model is."""
    return ModelRegistry(path, bundled=BUNDLED)
