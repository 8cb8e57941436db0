"""Small replicas of corpora: files of a few hundred samples, and whatever text lies beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

Write = Callable[..., Path]


@pytest.fixture
def sound(tmp_path: Path) -> Write:
    """Write silence to a file below tmp_path."""

    def write(name: str, *, seconds: float = 0.05) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(int(16_000 * seconds), dtype=np.float32), 16_000)
        return path

    return write


@pytest.fixture
def text(tmp_path: Path) -> Write:
    """Write lines to a file below tmp_path."""

    def write(name: str, *lines: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write
