"""Settings of training by name: the systems in `systems/`, one YAML file each, or one's own."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from storage.errors import UserError


def system_names() -> list[str]:
    """Names of the systems in `vocsep/training/systems`."""
    systems = resources.files("vocsep.training") / "systems"
    return sorted(entry.name.removesuffix(".yaml") for entry in systems.iterdir())


def load_settings(name: str) -> dict[str, Any]:
    """Settings of a system, or of a YAML file, as they stand there.

    Raises
    ------
    UserError
        If there is no such system or file, or it does not hold settings by name.
    """
    try:
        if name in system_names():
            text = (resources.files("vocsep.training") / "systems" / f"{name}.yaml").read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file, and no such system ({', '.join(system_names())})") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{name}: cannot be read as YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{name}: must hold settings by name, as in `batch_size: 32`")
    return content
