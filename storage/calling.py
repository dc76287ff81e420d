"""How a message for people names a command: by make in a clone, by `vocsep` where it is installed as a package."""

# The wheel moves this room into vocsep; see build_backend/one_package.py.
IN_CLONE = not __name__.startswith("vocsep.")


def call(make: str, vocsep: str) -> str:
    """The words after `make` or after `vocsep`, whichever there is, as a command line.

    >>> call("eval", "evaluate")
    'make eval'
    """
    return f"make {make}" if IN_CLONE else f"vocsep {vocsep}"
