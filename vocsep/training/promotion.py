"""Whether a model that a run added becomes the champion."""

import contextlib

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion


def model_of_run(registry: ModelRegistry, origin: dict[str, str], step: int) -> ModelVersion | None:
    """The model that a run added at its end after `step`; one of an earlier end of it is another."""
    for version in reversed(registry.versions()):
        with contextlib.suppress(UserError):
            model = registry.open(str(version))
            training = model.description.get("training", {})
            if training.get("run") == origin and training.get("steps_done") == step:
                return model
    return None


def promote_if_better(registry: ModelRegistry, model: ModelVersion) -> bool:
    """Make the model champion unless the champion is at least as good on the same songs; whether it was made so."""
    assert model.version is not None
    while True:
        champion = registry.champion()
        why = _reason(model, None if champion is None else registry.open(str(champion)))
        if why is None:
            return False
        try:
            registry.promote(model.version, why, replacing=champion)
            return True
        except UserError:
            # Another process was faster: its model is the one to compare with.
            if registry.champion() == champion:
                raise


def _reason(model: ModelVersion, champion: ModelVersion | None) -> str | None:
    """Why the model is to replace the champion; None if it is not."""
    if champion is None:
        return "trained: the first model"
    new, held = model.description, champion.description
    if held["data"]["digest"] != new["data"]["digest"]:
        return "trained: on other songs than the champion"
    score, champions = new["metrics"]["valid_sdr_db"], held["metrics"]["valid_sdr_db"]
    if score > champions:
        return f"trained: better on the same validation songs ({score:.2f} dB against {champions:.2f} dB)"
    return None
