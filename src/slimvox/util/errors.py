"""The exception whose messages are written for users, and a helper to quote other exceptions in them."""

from __future__ import annotations


class SlimvoxError(Exception):
    """An error that the user can correct: the message says what is wrong, where, and what to do.

    The command line prints the message alone and exits with `exit_status`; from Python it is raised as it is.
    """

    exit_status = 2
    """Exit status of the command line for bad input."""


class UnusableResultError(SlimvoxError):
    """A result that must not be used, such as hidden states that are NaN; it was not written."""

    exit_status = 1


class NotFiniteError(UnusableResultError):
    """An encoder computed NaN or infinite values from valid input."""


class ColumnError(SlimvoxError):
    """An error in a table; the names in backticks are its columns, not parameters."""


def reason_of(error: BaseException) -> str:
    """The reason that an exception gives, as the end of a sentence in one line.

    For errors of the operating system, the number and the file are left out, because the sentence already names the
    file. For errors of libraries, whose messages may be pages long, it is the first line, or the type of an error
    without a message.
    """
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()} text (byte {error.start})"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
