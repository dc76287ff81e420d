"""Prefect settings that every process of vocsep needs; imported before prefect."""

import os

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
    """Set what the user has not set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
