"""Settings as pydantic models: their base, reading them from YAML, and errors in one line."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load_yaml(path: str) -> dict[str, Any]:
    """Settings in the YAML file at `path`, as they stand there.

    Raises `UserError` if there is no such file, or it does not hold settings by name.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold settings by name, as in `batch_size: 32`")
    return content


def validated(model: type[Model], content: Any, where: str) -> Model:
    """`content` as a `model`, or a `UserError` that names `where`, the field and what is wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # What a check of this project says of all settings together stands for itself.
        place = [where, ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")]
        raise UserError(": ".join(part for part in place if part)) from None
