"""Errors whose message is meant for the user: one line that says what is wrong, where, and what to do."""

import unicodedata


class UserError(Exception):
    """An error that the user can fix. Command-line programs print it without a traceback and exit with code 2."""


class InvalidInput(UserError, ValueError):
    """A value, shape or setting that cannot be used."""


class NotFound(UserError, FileNotFoundError):
    """A missing file, folder, store or model."""


class DamagedError(UserError):
    """A file or object that is missing or is not what was written."""


def one_line(path: object, done: str, error: BaseException) -> UserError:
    """The error `<path>: cannot be <done> (<reason>)`; an error that is meant for the user stays as it is."""
    if isinstance(error, UserError):
        return error
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return UserError(f"{path}: cannot be {done} ({reason})")


def escaped(text: str) -> str:
    """A text as one line of UTF-8: control characters, and bytes that are not UTF-8 (lone surrogates), as escapes."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char
        for char in text
    )
