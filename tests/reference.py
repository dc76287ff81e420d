"""musdb and museval, the references of the tests, imported without the program ffmpeg too."""

import sys
import types

try:
    import stempeg  # noqa: F401
except RuntimeError:  # it only looks for the programs, which the tests do not use
    sys.modules["stempeg"] = types.ModuleType("stempeg")

import musdb
import museval

__all__ = ["musdb", "museval"]
