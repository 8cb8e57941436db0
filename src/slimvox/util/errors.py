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


def first_line(error: Exception) -> str:
    """The first line of a library's message, which may be pages long; the type of the error if it has no message."""
    return (str(error) or type(error).__name__).splitlines()[0]
