"""Checkpoints of a training run: whole, verified when read, the newest intact one first.

A checkpoint of step N is two files in one folder: `step-<N>.safetensors` (arrays) and `step-<N>.json` (state, and size
and CRC-32C of the arrays' file). The JSON file is written last and atomically: a checkpoint without it does not exist.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from storage.errors import DamagedError
from storage.files import read_json, save_arrays, size_and_checksum, value_digest, write_json, writing

Arrays = Mapping[str, npt.NDArray[Any]]

# One damaged file costs no more than the steps between two checkpoints.
_KEPT = 2
_NAME = re.compile(r"step-(\d{8,})\.json")
# What killed processes left, also of safetensors, and arrays that are not described.
_LEFT = re.compile(r"\.step-\d{8,}\..*|\.tmp\w*|step-\d{8,}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by name and a JSON-like state, as they were at `step`."""

    step: int
    arrays: dict[str, npt.NDArray[Any]]
    state: dict[str, Any]


class CheckpointFolder:
    """The checkpoints of one run; written by one process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def steps(self) -> list[int]:
        """Steps of the checkpoints there are, ascending."""
        if not self.path.is_dir():
            return []
        matches = (_NAME.fullmatch(entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, arrays: Arrays, state: dict[str, Any]) -> None:
        """Write a checkpoint, then delete all but the newest ones. One of the same step is replaced."""
        with writing(self._arrays_file(step)) as temporary:
            save_arrays(arrays, temporary)
            size, checksum = size_and_checksum(temporary)
            # The old description goes first: it does not describe the new arrays.
            self._state_file(step).unlink(missing_ok=True)
        content = {"step": step, "bytes": size, "crc32c": checksum, "state": state}
        write_json(self._state_file(step), content | {"digest": value_digest(content)})
        self._prune()

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step.

        Raises
        ------
        DamagedError
            If it is missing, or one of its bytes is not what was written.
        """
        file = self._arrays_file(step)
        try:
            content = read_json(self._state_file(step))
            digest = content.pop("digest")
            recorded = content["bytes"], content["crc32c"]
            if value_digest(content) != digest or size_and_checksum(file) != recorded:
                raise DamagedError(f"{file}: damaged checkpoint")
            return Checkpoint(content["step"], load_file(file), content["state"])
        except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
            raise DamagedError(f"{file}: damaged checkpoint ({str(error).splitlines()[0]})") from None

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest intact checkpoint, None if there is none, and one line for each newer one that is damaged."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.load(step), problems
            except DamagedError as error:
                problems.append(str(error))
        return None, problems

    def _prune(self) -> None:
        for step in self.steps()[:-_KEPT]:
            self._state_file(step).unlink()
        described = {self._arrays_file(step).name for step in self.steps()}
        for file in self.path.iterdir():
            if _LEFT.fullmatch(file.name) and file.name not in described and not file.is_dir():
                file.unlink()

    def _arrays_file(self, step: int) -> Path:
        return self.path / f"step-{step:08d}.safetensors"

    def _state_file(self, step: int) -> Path:
        return self.path / f"step-{step:08d}.json"
