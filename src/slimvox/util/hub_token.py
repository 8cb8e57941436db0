"""Access token for the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "HF_TOKEN"
"""Environment variable in which `huggingface_hub` looks for a token."""


@contextmanager
def hub_token(token: str | None) -> Iterator[None]:
    """Within this context, requests to the hub use a token, also those of child processes.

    Args:
        token: access token; None for the one in the environment, or the one that `hf auth login` stored.
    """
    if token is None:
        yield
        return
    earlier = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = token
    try:
        yield
    finally:
        if earlier is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = earlier
