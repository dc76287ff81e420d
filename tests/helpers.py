"""What many tests ask: which line a mistake gives, what lies in a folder, and one flipped bit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import UserError


def one_line(action: Callable[[], object], *parts: object) -> str:
    """The one line of the `UserError` that `action` raises, which names all `parts`."""
    with pytest.raises(UserError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def tree(path: Path) -> dict[str, bytes]:
    """The files in a folder and what is in them, by path relative to it."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def flip(path: Path, position: int | None = None) -> None:
    """Change one bit of a file, by default in its middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)
