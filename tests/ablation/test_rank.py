"""Which distance predicts the scores."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from slimvox.comparison.distance import StateDistances
from slimvox.comparison.sources import Comparison, SourceComparison
from slimvox.util.errors import SlimvoxError


@pytest.fixture
def rank() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "ablation" / "rank.py"
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("rank", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(rank: ModuleType, count: int) -> list[tuple[str, dict[str, float], dict[str, float]]]:
    """The mapped error has the order of the scores; the raw one has not; SID was scored once."""
    found = []
    for number in range(count):
        measured = StateDistances(
            relative_errors=(0.1, 0.1 * ((3 * number) % 5)),
            mapped_errors=(0.0, 0.1 * number),
            cosines=(0.0, 0.5),
            seconds=1.0,
        )
        scores = {"pr": 50.0 + number, "ks": 90.0 - number, **({"sid": 1.0} if number == 0 else {})}
        found.append((str(number), rank.distances_by_name(measured), scores))
    return found


def test_the_distance_that_orders_the_prunings_as_their_scores_comes_first(rank: ModuleType) -> None:
    found = rank.correlations(rows(rank, 5))
    assert next(iter(found)) == "mapped, mean"
    assert found["mapped, last"] == {"pr": pytest.approx(1), "ks": pytest.approx(1)}
    assert found["raw, last"]["pr"] < 0.9
    assert "raw, state 0" not in found and "1 - cosine" not in found  # the same for all prunings
    text = rank.table(rows(rank, 5))
    assert "| mapped, mean | +1.00 | +1.00 | +1.00 |" in text and "sid" not in text


def test_too_few_prunings_are_an_error(rank: ModuleType) -> None:
    with pytest.raises(SlimvoxError, match="at least 4 prunings"):
        rank.correlations(rows(rank, 3))


def test_distances_that_the_ablation_kept_are_read(rank: ModuleType, tmp_path: Path) -> None:
    distances = StateDistances(
        relative_errors=(0.1, 0.2), cosines=(0.0, 0.1), seconds=3.0, mapped_errors=(0.1, 0.15), clips=4
    )
    with pytest.raises(SlimvoxError, match="give audio to measure on"):
        rank.kept_distances(tmp_path)
    source = SourceComparison(source="held", clips=4, distances=distances, skipped={})
    (tmp_path / "run").mkdir()
    kept = json.dumps(Comparison(model="m", teacher="t", sources=(source,)).to_dict())
    (tmp_path / "run" / "comparison.json").write_text(kept)
    assert rank.kept_distances(tmp_path) == distances


def test_all_figures_are_kept(rank: ModuleType, tmp_path: Path) -> None:
    rank.write_csv(tmp_path / "rank.csv", rows(rank, 4))
    lines = (tmp_path / "rank.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].endswith('mapped, state 1",pr,ks,sid')
