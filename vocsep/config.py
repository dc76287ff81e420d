"""Settings of the spectrogram, as pydantic models, and the named presets."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def validated(model: type[Model], content: Any, where: str) -> Model:
    """`content` as a `model`, or a `UserError` that names `where`, the field and what is wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # What a check of this project says of all settings together stands for itself.
        place = [where, ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")]
        raise UserError(": ".join(part for part in place if part)) from None
