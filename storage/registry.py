"""Numbered, immutable model versions on disk, and the one that is in use: the champion.

`<registry>/0001/{model.safetensors,model.json}`, ...; the file `<registry>/champion` holds the champion's number and is
replaced atomically. Nothing is ever executed from a file: weights are safetensors, everything else is JSON.
"""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from storage.errors import UserError
from storage.files import file_digest, read_json, write_atomically, write_json

WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"
CHAMPION_NAME = "champion"

Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ModelVersion:
    """One model on disk. `version` is its number in the registry, None for a model folder elsewhere."""

    path: Path
    version: int | None
    description: dict[str, Any]

    def load_weights(self) -> Weights:
        """Weights by name.

        Raises
        ------
        UserError
            If the file is missing or its bytes are not those that were saved.
        """
        weights = self.path / WEIGHTS_NAME
        if not weights.is_file() or file_digest(weights) != self.description["weights_sha256"]:
            raise UserError(f"{weights}: missing or damaged; train again or name another model")
        try:
            return load_file(weights)
        except SafetensorError as error:
            raise UserError(f"{weights}: not a safetensors file ({error})") from None


class ModelRegistry:
    """The models of one folder. Versions are numbered from 1 in the order in which they were added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def versions(self) -> list[int]:
        """Numbers of all versions, ascending."""
        if not self.path.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.path.iterdir() if entry.name.isdecimal() and entry.is_dir())

    def add(self, weights: Weights, description: dict[str, Any]) -> ModelVersion:
        """Save a new version, whole, and return it. The champion stays what it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{uuid.uuid4().hex}"
        temporary.mkdir()
        try:
            save_file({name: np.asarray(value, order="C") for name, value in weights.items()}, temporary / WEIGHTS_NAME)
            description = description | {"weights_sha256": file_digest(temporary / WEIGHTS_NAME)}
            write_json(temporary / DESCRIPTION_NAME, description)
            while True:
                version = max(self.versions(), default=0) + 1
                try:
                    # Renaming a folder onto one that holds files fails, so that two processes never share a number.
                    os.rename(temporary, self._folder(version))  # noqa: PTH104
                    break
                except OSError:
                    if not self._folder(version).exists():
                        raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return ModelVersion(self._folder(version), version, description)

    def champion(self) -> int | None:
        """Number of the model in use, None before the first."""
        try:
            return int((self.path / CHAMPION_NAME).read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise UserError(f"{self.path / CHAMPION_NAME}: does not hold a version number") from None

    def promote(self, version: int) -> None:
        """Make `version` the champion."""
        self.open(str(version))
        write_atomically(self.path / CHAMPION_NAME, f"{version}\n".encode("ascii"))

    def open(self, name: str = CHAMPION_NAME) -> ModelVersion:
        """A model by `champion`, `latest`, a version's number or a model folder's path.

        Raises
        ------
        UserError
            If there is none, or its description cannot be read.
        """
        version: int | None = None
        if name in (CHAMPION_NAME, "latest"):
            version = self.champion() if name == CHAMPION_NAME else max(self.versions(), default=None)
            if version is None:
                raise UserError(f"{self.path}: no model yet; run `make train` first")
        elif name.isdecimal():
            version = int(name)
        path = Path(name) if version is None else self._folder(version)
        if not (path / DESCRIPTION_NAME).is_file():
            known = ", ".join(map(str, self.versions())) or "none"
            raise UserError(
                f"{name}: no such model in {self.path} (versions: {known}) and no model folder of that name"
            )
        try:
            description: dict[str, Any] = read_json(path / DESCRIPTION_NAME)
        except ValueError as error:
            raise UserError(f"{path / DESCRIPTION_NAME}: damaged ({error})") from None
        if not isinstance(description, dict) or not isinstance(description.get("weights_sha256"), str):
            raise UserError(f"{path / DESCRIPTION_NAME}: damaged (does not describe a model)")
        return ModelVersion(path, version, description)

    def _folder(self, version: int) -> Path:
        return self.path / f"{version:04d}"
