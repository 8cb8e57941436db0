from __future__ import annotations

import itertools

import numpy as np
import torch

from slimvox.evaluation.tasks.qbe import search_scores, subsequence_distance


def _by_hand(distances: torch.Tensor) -> float:
    """All paths of a small matrix, one after the other."""
    low, high = distances.amin(1, keepdim=True), distances.amax(1, keepdim=True)
    scaled = ((distances - low) / (high - low)).tolist()
    rows, columns = distances.shape
    best = float("inf")
    for start in range(columns):
        for steps in itertools.product(range(3), repeat=rows - 1):
            path = [start + sum(steps[:row]) for row in range(rows)]
            if path[-1] < columns:
                best = min(best, sum(scaled[row][column] for row, column in enumerate(path)))
    return best / rows


def test_least_distance_over_all_paths() -> None:
    distances = torch.rand(3, 4, 7)
    found = subsequence_distance(distances, torch.tensor([7, 7, 7]))
    for row, matrix in zip(found.tolist(), distances, strict=True):
        assert abs(row - _by_hand(matrix)) < 1e-6


def test_padding_of_a_document_is_never_used() -> None:
    distances = torch.rand(1, 4, 9)
    distances[..., 6:] = -5.0
    found = subsequence_distance(distances, torch.tensor([6]))
    assert abs(float(found) - _by_hand(distances[0, :, :6])) < 1e-6


def test_a_query_cut_from_a_document_finds_it() -> None:
    documents = [torch.randn(length, 8) for length in (30, 25, 40)]
    queries = [documents[1][5:15], documents[2][20:32], torch.randn(2, 8)]
    scores = search_scores(queries, documents, shortest_query=5, batch=2)
    assert scores[0].argmax() == 1 and scores[1].argmax() == 2
    np.testing.assert_allclose(scores.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(scores[2], 0)
