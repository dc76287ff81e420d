"""A registry to decide in."""

from pathlib import Path

import pytest

from storage.registry import ModelRegistry
from tests.vocsep.retraining.challengers import add_model


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Two models, the first of which is the champion."""
    registry = ModelRegistry(tmp_path / "models")
    add_model(registry)
    add_model(registry)
    registry.promote(1)
    return registry
