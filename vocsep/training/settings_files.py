"""Settings of training by name: the systems in `systems/`, one YAML file each, or one's own."""

from importlib import resources
from typing import Any

from storage.errors import NotFound
from vocsep.config import load_yaml


def system_names() -> list[str]:
    """Names of the systems in `vocsep/training/systems`."""
    systems = resources.files("vocsep.training") / "systems"
    return sorted(entry.name.removesuffix(".yaml") for entry in systems.iterdir())


def load_settings(name: str) -> dict[str, Any]:
    """Settings of a system, or of a YAML file, as written there.

    Raises
    ------
    UserError
        If there is no such system or file, or it does not hold settings by name.
    """
    if name in system_names():
        return load_yaml(str(resources.files("vocsep.training") / "systems" / f"{name}.yaml"))
    try:
        return load_yaml(name)
    except NotFound:
        raise NotFound(f"{name}: no such file, and no such system ({', '.join(system_names())})") from None
