"""The one exception a user of slimvox is meant to read, and how it quotes others."""

from __future__ import annotations


class SlimvoxError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message alone and exits with `exit_status`; from Python it is raised as it is.
    """

    exit_status = 2
    """Bad input."""


class UnusableResultError(SlimvoxError):
    """A result that must not be used, such as hidden states that are NaN; it was not written."""

    exit_status = 1


class NotFiniteError(UnusableResultError):
    """An encoder computed NaN or infinite values from valid input."""


def first_line(error: Exception) -> str:
    """The first line of a library's message, which may go on for pages; the kind of error where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
