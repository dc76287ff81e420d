"""Numbered, immutable model versions on disk, and the one that is in use: the champion.

`<registry>/0001/{model.safetensors,model.json}`, ...; the file `<registry>/champion` names the champion and those that
were it before, and is replaced atomically. A version's files are never changed, and only read if they are as they were
written, by their checksums. Nothing is ever executed from a file: weights are safetensors, everything else is JSON.

What adds or deletes versions or moves the champion holds the lock `<registry>/.lock` for a moment, so that no two
processes undo what the other did. Readers need no lock.
"""

import contextlib
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from storage.calling import call
from storage.errors import DamagedError, NotFound, UserError, one_line
from storage.files import file_digest, is_file, read_json, remove, save_arrays, value_digest, write_json, writing_folder
from storage.lock import locked

WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"
CHAMPION_NAME = "champion"
BUNDLED_NAME = "bundled"

HISTORY_LENGTH = 100
KEEP = 10
"""Newest versions that pruning leaves unless told otherwise."""
_LOCK_NAME = ".lock"
_MOST_DIGITS = 10
_VERSION = re.compile(r"[0-9]{4}|[1-9][0-9]{4,7}")  # leaves room for more
# What killed processes leave: versions on their way in or out. Nothing else that is hidden is the registry's.
_LEFT = re.compile(r"\.(deleted-[0-9a-f]+|\d{4,}\.[0-9a-f]+(-replaced)?)")
WEIGHTS_DIGEST = "weights_sha256"
DESCRIPTION_DIGEST = "description_sha256"

Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ModelVersion:
    """One model on disk. `version` is its number in the registry, None for a model folder elsewhere."""

    path: Path
    version: int | None
    description: dict[str, Any]

    def verify(self) -> None:
        """Raise `UserError` if the file of the weights is missing or its bytes are not those that were saved."""
        weights = self.path / WEIGHTS_NAME
        if not weights.is_file() or file_digest(weights) != self.description[WEIGHTS_DIGEST]:
            raise DamagedError(f"{weights}: missing or damaged; name another model, or `vocsep models rollback`")

    def load_weights(self, most_bytes: int | None = None) -> Weights:
        """Weights by name; nothing is read of a file that is larger than `most_bytes`.

        Raises
        ------
        UserError
            If the file is missing, larger, or its bytes are not those that were saved.
        """
        weights = self.path / WEIGHTS_NAME
        if most_bytes is not None and weights.is_file() and weights.stat().st_size > most_bytes:
            raise DamagedError(f"{weights}: larger than the weights that {DESCRIPTION_NAME} speaks of")
        self.verify()
        try:
            return load_file(weights)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:  # or of types that NumPy has not
            raise DamagedError(f"{weights}: not a safetensors file that can be used ({error})") from None

    def says(self, *place: str) -> Any:
        """What the description holds at a place, such as `metrics`, `valid_sdr_db`.

        Raises
        ------
        UserError
            If it holds nothing there.
        """
        found: Any = self.description
        for name in place:
            if not isinstance(found, dict) or name not in found:
                raise DamagedError(f"{self.path / DESCRIPTION_NAME}: damaged (says nothing of {'.'.join(place)})")
            found = found[name]
        return found

    def songs(self, split: str) -> list[str]:
        """Names of the songs of a split that the model saw; none if the description says nothing of them.

        Raises
        ------
        UserError
            If it says something else there.
        """
        data = self.description.get("data", {})
        names = data.get(split, []) if isinstance(data, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DamagedError(f"{self.path / DESCRIPTION_NAME}: damaged (data.{split} holds no names of songs)")
        return names


@dataclass(frozen=True)
class Reign:
    """A champion: since when (ISO 8601, UTC), and why."""

    version: int
    since: str
    why: str


class ModelRegistry:
    """The models of one folder. Versions are numbered from 1 in the order in which they were added.

    Attributes
    ----------
    bundled
        Folder of a model that is always there as `bundled`, and in use as long as there is no champion.
    """

    def __init__(self, path: Path, bundled: Path | None = None) -> None:
        self.path = path
        self.bundled = bundled

    def versions(self) -> list[int]:
        """Numbers of all versions, ascending; folders without a file of a model are none."""
        files = (DESCRIPTION_NAME, WEIGHTS_NAME)
        return [number for number in self._numbers() if any((self._folder(number) / name).exists() for name in files)]

    def _numbers(self) -> list[int]:
        """Numbers of folders that have the name of a version, ascending."""
        entries = [entry for entry in self.path.iterdir() if entry.is_dir()] if self.path.is_dir() else []
        return sorted(int(entry.name) for entry in entries if _VERSION.fullmatch(entry.name))

    def add(self, weights: Weights, description: dict[str, Any]) -> ModelVersion:
        """Save a new version, whole, and return it. The champion stays what it is."""
        with locked(self.path / _LOCK_NAME, wait=True):
            version = max(self._numbers(), default=0) + 1
            with writing_folder(self._folder(version)) as folder:
                save_arrays(weights, folder / WEIGHTS_NAME)
                description = description | {WEIGHTS_DIGEST: file_digest(folder / WEIGHTS_NAME)}
                digest = value_digest(description)
                write_json(folder / DESCRIPTION_NAME, description | {DESCRIPTION_DIGEST: digest})
        return ModelVersion(self._folder(version), version, description)

    def champion(self) -> int | None:
        """Number of the model in use, None before the first."""
        reigns = self.history()
        return reigns[-1].version if reigns else None

    def in_use(self) -> ModelVersion | None:
        """The champion, before the first the bundled model, None where there is neither."""
        if self.champion() is None and (self.bundled is None or not self.bundled.is_dir()):
            return None
        return self.open(CHAMPION_NAME)

    def history(self) -> list[Reign]:
        """The champion, last, and those before it that a rollback may go back to.

        Raises
        ------
        UserError
            If the file is damaged.
        """
        path = self.path / CHAMPION_NAME
        try:
            content = read_json(path)
            # Files of earlier versions hold no digest; nothing else may be listed with the champions.
            held = {name: value for name, value in content.items() if name != "digest"}
            if held.keys() != {"champions"} or content.get("digest") not in (None, value_digest(held)):
                raise ValueError("edited since it was written")
            return [Reign(int(one["version"]), str(one["since"]), str(one["why"])) for one in content["champions"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError):
            raise DamagedError(
                f"{path}: does not say which model is the champion; name one: vocsep models promote VERSION"
            ) from None

    def promote(self, version: int, why: str = "", replacing: int | Literal["any"] | None = "any") -> None:
        """Make `version` the champion, if its files are intact.

        Parameters
        ----------
        why
            A line for the history.
        replacing
            The champion (None: that there is none) on which the decision rests.

        Raises
        ------
        UserError
            If there is no such version, it is damaged, or the champion is no longer the one to be replaced.
        """
        with self._lock():
            self.open(str(version)).verify()
            try:
                reigns = self.history()
            except UserError:
                if replacing != "any":
                    raise
                reigns = []
            held = reigns[-1].version if reigns else None
            if replacing not in ("any", held):
                raise UserError(f"{self.path}: the champion is {held} by now, not {replacing}; compare with that one")
            if held != version:
                self._write_history([*reigns, Reign(version, datetime.now(UTC).isoformat(timespec="seconds"), why)])

    def rollback(self) -> tuple[int, int]:
        """Make the champion before this one that is still intact the champion; returns both numbers.

        Raises
        ------
        UserError
            If there is none.
        """
        with self._lock():
            reigns = self.history()
            if earlier := self._up_to_earlier(reigns):
                self._write_history(earlier)
                return reigns[-1].version, earlier[-1].version
        raise UserError(f"{self.path}: no earlier champion to go back to; name one: vocsep models promote VERSION")

    def earlier_champion(self) -> int | None:
        """The version that a rollback would go back to; None if there is none."""
        earlier = self._up_to_earlier(self.history())
        return earlier[-1].version if earlier else None

    def _up_to_earlier(self, reigns: list[Reign]) -> list[Reign]:
        """Reigns up to the last one before the champion's whose version is still intact."""
        counts = range(len(reigns) - 1, 0, -1)
        return next((reigns[:count] for count in counts if self.is_intact(reigns[count - 1].version)), [])

    def is_intact(self, version: int) -> bool:
        """Whether a version exists, and its files are those that were saved."""
        with contextlib.suppress(UserError):
            self.open(str(version)).verify()
            return True
        return False

    def prunable(self, keep: int) -> list[int]:
        """All versions but the `keep` newest (at least one), the champion, and the champion before it."""
        kept = {*self.versions()[-max(1, keep) :], *(reign.version for reign in self.history()[-2:])}
        return [version for version in self.versions() if version not in kept]

    def prune(self, keep: int) -> list[int]:
        """Delete the versions that are `prunable`, and what killed processes left; returns their numbers."""
        with self._lock():
            versions = self.prunable(keep)
            for version in versions:
                # At every instant a version is complete or missing.
                self._folder(version).rename(self.path / f".deleted-{uuid.uuid4().hex}")
            for entry in self.path.iterdir():
                if _LEFT.fullmatch(entry.name):
                    remove(entry)
        return versions

    def open(self, name: str = CHAMPION_NAME) -> ModelVersion:
        """A model by `champion`, `latest`, `bundled`, a version's number or a model folder's path.

        Raises
        ------
        UserError
            If there is none, or its description cannot be read.
        """
        version: int | None = None
        is_bundled = name == BUNDLED_NAME or (name == CHAMPION_NAME and self.champion() is None)
        if is_bundled and self.bundled is not None and self.bundled.is_dir():
            return ModelVersion(self.bundled, None, _read_description(self.bundled / DESCRIPTION_NAME))
        if name in (CHAMPION_NAME, "latest"):
            version = self.champion() if name == CHAMPION_NAME else max(self.versions(), default=None)
            if version is None:
                raise NotFound(f"{self.path}: no model yet; run `{call('train', 'train')}` first")
        elif name.isdecimal() and len(name) < _MOST_DIGITS:
            version = int(name)
        path = Path(name) if version is None else self._folder(version)
        if not is_file(path / DESCRIPTION_NAME):
            known = ", ".join(map(str, self.versions())) or "none"
            raise NotFound(f"{name}: no such model in {self.path} (versions: {known}) and no model folder of that name")
        return ModelVersion(path, version, _read_description(path / DESCRIPTION_NAME))

    def _folder(self, version: int) -> Path:
        return self.path / f"{version:04d}"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Wait for, and hold, the right to move the champion and to delete."""
        if not self.path.is_dir():
            raise NotFound(f"{self.path}: no model yet; run `{call('train', 'train')}` first")
        with locked(self.path / _LOCK_NAME, wait=True):
            yield

    def _write_history(self, reigns: list[Reign]) -> None:
        content = {"champions": [asdict(reign) for reign in reigns[-HISTORY_LENGTH:]]}
        try:
            write_json(self.path / CHAMPION_NAME, content | {"digest": value_digest(content)})
        except OSError as error:
            raise one_line(self.path / CHAMPION_NAME, "written", error) from None


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get(WEIGHTS_DIGEST), str):
            raise ValueError("does not describe a model")
        digest = content.pop(DESCRIPTION_DIGEST, None)
        if digest is not None and digest != value_digest(content):
            raise ValueError("edited since it was written")
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path}: damaged ({getattr(error, 'strerror', None) or error})") from None
    return content
