"""Whether a model that a run added becomes the champion."""

import contextlib

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion


def _model_of_run(registry: ModelRegistry, origin: dict[str, str], step: int) -> ModelVersion | None:
    """The model that a run added at its end after `step`; one of an earlier end of it is another."""
    for version in reversed(registry.versions()):
        with contextlib.suppress(UserError):
            model = registry.open(str(version))
            training = model.description.get("training", {})
            if training.get("run") == origin and training.get("steps_done") == step:
                return model
    return None


def _promote_if_better(registry: ModelRegistry, model: ModelVersion) -> bool:
    assert model.version is not None
    why = "trained: the first, better on the same validation songs, or of other songs"
    while True:
        champion = registry.champion()
        if champion is not None and not _is_better(model, registry.open(str(champion))):
            return False
        try:
            registry.promote(model.version, why, replacing=champion)
            return True
        except UserError:
            # Another process was faster: its model is the one to compare with.
            if registry.champion() == champion:
                raise


def _is_better(model: ModelVersion, champion: ModelVersion) -> bool:
    new, held = model.description, champion.description
    same_data = held["data"]["digest"] == new["data"]["digest"]
    return not same_data or new["metrics"]["valid_sdr_db"] > held["metrics"]["valid_sdr_db"]
