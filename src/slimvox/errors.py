"""The one exception a user of slimvox is meant to read."""

from __future__ import annotations


class SlimvoxError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 2; from Python it is raised as it is.
    """
