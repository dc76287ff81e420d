"""Small models, and processes that add and promote them."""

from pathlib import Path

import numpy as np

from storage.registry import ModelRegistry, Weights

ADD_MODELS = """
import sys
from pathlib import Path
import numpy as np
from storage.registry import ModelRegistry
registry, tag, count, size = ModelRegistry(Path(sys.argv[1])), *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    value = tag * 1000 + number
    model = registry.add({"w": np.full(size, value, np.float32)}, {"value": value})
    print(model.version, value, flush=True)
"""


PROMOTE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from storage.registry import ModelRegistry
registry = ModelRegistry(Path(sys.argv[1]))
for number in itertools.count():
    registry.promote(number % 2 + 1)
    print(number, flush=True)
"""


def weights(value: float = 1.0) -> Weights:
    return {"layer.weight": np.full((3, 2), value, np.float32), "layer.bias": np.zeros(3, np.float64)}


def with_models(path: Path, count: int = 3) -> ModelRegistry:
    registry = ModelRegistry(path / "models")
    for number in range(1, count + 1):
        registry.add(weights(number), {"number": number})
    return registry
