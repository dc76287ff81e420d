"""Settings as pydantic models: their base, reading them from YAML, and errors in one line."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import NotFound, UserError

# Of a file of settings.
MOST_BYTES, MOST_VALUES = 100_000, 20_000

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: unknown fields are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load_yaml(path: str) -> dict[str, Any]:
    """Settings in the YAML file at `path`, as written there.

    Raises `UserError` if there is no such file, or it does not hold settings by name.
    """
    try:
        # A device or a pipe may never end.
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise UserError(f"{path}: more than {MOST_BYTES} bytes; no file of settings")
        content = yaml.safe_load(text.decode()) if _is_small(yaml.compose(text.decode(), yaml.SafeLoader)) else None
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"{path}: no such file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({str(error).partition(chr(10))[0]})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold settings by name, as in `batch_size: 32`")
    return content


def _is_small(root: yaml.Node | None) -> bool:
    """True; `ValueError` where a YAML tree holds more values than settings ever do, or itself, by its aliases."""
    values = 0
    pending = [] if root is None else [root]
    while pending:
        node = pending.pop()
        values += 1
        if values > MOST_VALUES:
            raise ValueError("its aliases expand to more values than settings ever have")
        if isinstance(node, yaml.MappingNode):
            pending += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value
    return True


def validated(model: type[Model], content: Any, where: str) -> Model:
    """`content` as a `model`, or a `UserError` that names `where`, the field and what is wrong with it."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # What a check of this project says of all settings together needs no prefix.
        wrong = "no such setting" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        place = [where, ".".join(str(part) for part in first["loc"]), wrong]
        raise UserError(": ".join(part for part in place if part)) from None
