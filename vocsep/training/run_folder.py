"""The folder of one training run (`run.json`, metrics, checkpoints), and finding one to resume."""

import contextlib
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from storage.checkpoints import Checkpoint, CheckpointFolder
from storage.errors import UserError
from storage.files import new_folder, read_json, write_json
from storage.lock import InUse, holder, locked
from storage.registry import ModelRegistry
from storage.store import config_differences

RUN_NAME = "run.json"
CHECKPOINTS = "checkpoints"
FAILED = "failed"
LOCK = ".lock"
# Settings that runs of version 0.1.0 do not name.
EARLIER = {"network": "unet"}
# Fields of `run.json` that hold settings by name.
_SETTINGS = ("config", "settings")

Status = Literal["running", "stopped", "failed", "finished"]

log = logging.getLogger(__name__)


@dataclass
class RunFolder:
    """A run that this process holds.

    Attributes
    ----------
    path
        Its folder.
    checkpoint
        Where it resumes; None at the beginning.
    description
        Content of `run.json`: `status`, `config`, `data_digest`, ...
    """

    path: Path
    checkpoint: Checkpoint | None
    description: dict[str, Any]
    _lock: contextlib.ExitStack

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The run's checkpoints."""
        return CheckpointFolder(self.path / CHECKPOINTS)

    def write(self, status: Status, **more: Any) -> None:
        """Replace `run.json`."""
        self.description = self.description | more | {"status": status}
        write_json(self.path / RUN_NAME, self.description)

    def close(self) -> None:
        """Let others resume the run."""
        self._lock.close()


def open_run(runs: Path, resume: str, config: dict[str, Any], data_digest: str) -> RunFolder:
    """A new run's folder, or that of a run to resume.

    Parameters
    ----------
    runs
        Folder of all runs.
    resume
        `never` begins anew; `auto` resumes the newest unfinished run of the same settings and data, if there is
        one; anything else is the path of a run's folder.
    config
        The settings that decide what a step does.

    Raises
    ------
    UserError
        If the run that is named is none, is in use, has no intact checkpoint, or has other settings or data.
    """
    expected = {"config": config, "data_digest": data_digest}
    if resume == "auto":
        for path in _unfinished(runs):
            different = _differences(_read(path), expected)
            if different:
                log.info("%s is unfinished, but was made with other settings (%s)", path, different)
                continue
            run = _take(path)
            if run is not None and run.checkpoint is not None:
                return run
            if run is not None:
                run.close()
    elif resume != "never":
        path = Path(resume)
        if different := _differences(_read(path), expected):
            raise UserError(f"{resume}: was made with other settings ({different}); use its settings, or start over")
        run = _take(path)
        if run is None:
            raise UserError(f"{resume}: another process is training this run")
        if run.checkpoint is None:
            run.close()
            raise UserError(f"{resume}: no intact checkpoint in it; start over")
        return run
    path = new_folder(runs, datetime.now().strftime("%Y%m%d-%H%M%S"))
    run = _take(path)
    assert run is not None
    run.description = expected | {"created": datetime.now().astimezone().isoformat(timespec="seconds")}
    return run


def _read(path: Path) -> dict[str, Any]:
    """Content of a run's `run.json`; `UserError` if there is none, or it cannot be read."""
    try:
        content = read_json(path / RUN_NAME)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: no training run to resume ({RUN_NAME}: {reason})") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(name, {}), dict) for name in _SETTINGS):
        raise UserError(f"{path / RUN_NAME}: does not describe a training run")
    return content


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training run, not of another program's."""
    with contextlib.suppress(UserError):
        return {"status", "config", "data_digest"} <= _read(path).keys()
    return False


def _unfinished(runs: Path) -> list[Path]:
    """Runs that were stopped or killed, newest first."""
    if not runs.is_dir():
        return []
    found = []
    for path in sorted(runs.iterdir(), key=lambda path: path.name, reverse=True):
        with contextlib.suppress(UserError):
            if _read(path).get("status") in ("running", "stopped"):
                found.append(path)
    return found


def _differences(held: dict[str, Any], expected: dict[str, Any]) -> str:
    earlier = {name: value for name, value in EARLIER.items() if name in expected["config"]}
    config = config_differences(earlier | held.get("config", {}), expected["config"])
    if held.get("data_digest") != expected["data_digest"]:
        return ", ".join(part for part in (config, "other training data") if part)
    return config


def finished_version(runs: Path, registry: ModelRegistry) -> int | None:
    """The model that a finished one of the runs in a folder made, the newest if there are several; None if none is.

    Runs that cannot be read, and those whose model is gone or damaged, are not finished.
    """
    for path in sorted(runs.glob(f"*/{RUN_NAME}"), reverse=True):
        with contextlib.suppress(UserError):
            description = _read(path.parent)
            version = description.get("model_version")
            if description.get("status") == "finished" and type(version) is int and registry.is_intact(version):
                return version
    return None


def in_use(path: Path) -> bool:
    """Whether a living process holds the run at `path`."""
    return bool(holder(path / LOCK))


def _take(path: Path) -> RunFolder | None:
    """The run at `path`, locked for as long as this process lives; None if another process holds it."""
    lock = contextlib.ExitStack()
    try:
        lock.enter_context(locked(path / LOCK))
    except InUse:
        return None
    checkpoint, problems = CheckpointFolder(path / CHECKPOINTS).newest()
    for problem in problems:
        log.warning("%s; resuming from an earlier one", problem)
    description = _read(path) if (path / RUN_NAME).is_file() else {}
    return RunFolder(path, checkpoint, description, lock)


def with_settings_of(resume: str, given: dict[str, Any]) -> dict[str, Any]:
    """Settings for resuming a run: its own, and over them those that are given.

    Parameters
    ----------
    resume
        A run's folder; `auto` and `never` change nothing.
    """
    if resume in ("auto", "never"):
        return dict(given)
    settings: dict[str, Any] = EARLIER | _read(Path(resume)).get("settings", {})
    inner = {
        name: settings[name] | value
        for name, value in given.items()
        if isinstance(value, dict) and isinstance(settings.get(name), dict)
    }
    return settings | given | inner
