"""docs/evaluation.md names the folder of each official corpus."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from slimvox.evaluation import readers
from slimvox.evaluation.readers.corpus import Corpus

PAGE = Path(__file__).parents[3] / "docs" / "evaluation.md"
CORPORA = [
    corpus
    for module in pkgutil.iter_modules(readers.__path__, f"{readers.__name__}.")
    for corpus in vars(importlib.import_module(module.name)).values()
    if isinstance(corpus, Corpus)
]


@pytest.mark.parametrize("folder", sorted({each.folder for each in CORPORA}))
def test_the_folder_is_in_the_table(folder: str) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert any(f"`{folder}`" in row for row in rows)


def test_all_corpora_are_found() -> None:
    assert len({each.folder for each in CORPORA}) == 8
