"""Whether a model that a run added becomes the champion."""

import contextlib

from storage.errors import UserError
from storage.registry import ModelRegistry, ModelVersion
from storage.store import SpectrogramStore
from vocsep.models.torch_network import load_network
from vocsep.training.validation import validate


def model_of_run(registry: ModelRegistry, origin: dict[str, str], step: int) -> ModelVersion | None:
    """The model that a run added at its end after `step`; one of an earlier end of it is another."""
    for version in reversed(registry.versions()):
        with contextlib.suppress(UserError):
            model = registry.open(str(version))
            training = model.description.get("training", {})
            if training.get("run") == origin and training.get("steps_done") == step:
                return model
    return None


def promote_if_better(registry: ModelRegistry, model: ModelVersion, store: SpectrogramStore) -> bool:
    """Make the model champion unless the one in use is at least as good; whether it was made so.

    Until there is a champion, the bundled model is in use. It is scored on the store's validation songs, and so is a
    champion that was validated on other data.
    """
    assert model.version is not None
    while True:
        champion = registry.champion()
        why = _reason(model, registry.in_use(), store)
        if why is None:
            return False
        try:
            registry.promote(model.version, why, replacing=champion)
            return True
        except UserError:
            # Another process was faster: its model is the one to compare with.
            if registry.champion() == champion:
                raise


def _reason(model: ModelVersion, held: ModelVersion | None, store: SpectrogramStore) -> str | None:
    """Why the model is to replace the one in use; None if it is not."""
    if held is None:
        return "trained: the first model"
    if held.says("spectrogram") != model.says("spectrogram"):
        return "trained: the first model of this spectrogram"
    score = model.says("metrics", "valid_sdr_db")
    data, other = model.says("data"), held.says("data")
    if held.version is not None and other["digest"] == data["digest"]:
        name, held_score = "champion", held.says("metrics", "valid_sdr_db")
    else:
        name = "bundled model" if held.version is None else "champion"
        known = {*data["valid"]} & {*other["train"]}
        if known and held.version is not None:
            return f"trained: the champion knows {len(known)} of the validation songs from its training: not compared"
        try:
            held_score = validate(store, load_network(held)).sdr_db
        except UserError as error:
            return f"trained: the {name} cannot be scored ({error})"
    if score <= held_score:
        return None
    return f"trained: better than the {name} on the validation songs ({score:.2f} dB, {held_score:.2f} dB)"
