"""The one exception class whose message is meant for the user."""


class UserError(Exception):
    """A mistake that the user can mend: one line that says what, where and what to do.

    Command-line programs print it without a traceback and exit with code 2.
    """
