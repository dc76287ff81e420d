"""Prefect settings that every process of vocsep needs; imported before prefect."""

import os
from pathlib import Path

from storage.errors import UserError

DEFAULTS = {
    # Offline there is nobody to report usage to; without these two the server logs an error every few minutes.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The embedded server of a fresh home takes longer than Prefect's own limit of 20 s to start.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # The library's log lines belong to the run.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "vocsep",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


def set_defaults() -> None:
    """Set what the user has not set, and make the folder that PREFECT_HOME names (Prefect does not make its parents).

    Raises
    ------
    UserError
        If that folder cannot be made.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if home := os.environ.get("PREFECT_HOME"):
        try:
            Path(home).expanduser().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"PREFECT_HOME={home}: cannot be made ({error.strerror}); name another folder") from error
