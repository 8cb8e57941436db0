"""Least squares with coefficients that cannot be negative: no size makes an encoder faster by growing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def fit_times(terms: Sequence[Sequence[float]], times: Sequence[float]) -> tuple[float, ...]:
    """Coefficients by which the terms give the times, with the smallest relative errors.

    Args:
        terms: measurements x terms.
        times: one positive number each.

    Returns:
        One coefficient per term, each at least 0. Where the best fit has negative ones, the term of the most negative
        is left out and the fit repeated.

    Raises:
        ValueError: if a time is not finite and positive, or a term is not finite.
    """
    if not all(0 < each < math.inf for each in times) or not np.isfinite(np.asarray(terms)).all():
        raise ValueError("times must be finite and positive, and terms finite")
    weights = 1 / np.asarray(times, dtype=np.float64)
    design = np.asarray(terms, dtype=np.float64) * weights[:, None]
    scale = np.maximum(np.abs(design).max(0), 1e-300)
    used = list(range(design.shape[1]))
    solution = np.zeros(design.shape[1])
    while used:
        part, *_ = np.linalg.lstsq(design[:, used] / scale[used], np.ones(len(weights)), rcond=None)
        if part.min() >= 0:
            solution[used] = part / scale[used]
            break
        used.pop(int(part.argmin()))
    return tuple(float(value) for value in solution)
