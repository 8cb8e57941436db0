"""Equal error rate: where misses and false alarms are equally frequent.

scikit-learn's `roc_curve` gives the same rate (tested), but would replace four lines here by a second of importing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class EqualError:
    """Equal error rate and its threshold."""

    rate: float
    """0 to 1."""
    threshold: float
    """Scores at or above it are accepted."""


def equal_error_rate(scores: npt.ArrayLike, targets: npt.ArrayLike) -> EqualError:
    """Equal error rate: the point at which misses equal false alarms on the linearly interpolated ROC curve.

    Trials of one score are accepted together, so a constant score gives 0.5.

    Args:
        scores: (trials,), finite; higher means more alike.
        targets: (trials,), true where the two really are the same.

    Raises:
        ValueError: if the lengths differ, a score is not finite, or one of the two kinds of trial is missing.
    """
    values, is_target = np.asarray(scores, dtype=np.float64), np.asarray(targets, dtype=bool)
    if values.ndim != 1 or values.shape != is_target.shape:
        raise ValueError(
            f"`scores` and `targets` must be (trials,), but are {values.shape} and {is_target.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("`scores` must be finite")
    if is_target.all() or not is_target.any():
        raise ValueError("an equal error rate needs trials of both kinds, same and different")
    distinct, place = np.unique(-values, return_inverse=True)
    hits = np.cumsum(np.bincount(place, weights=is_target)) / is_target.sum()
    false_alarms = np.cumsum(np.bincount(place, weights=~is_target)) / (~is_target).sum()
    # A threshold above all scores accepts nothing; it has the same place on the axis as the highest score.
    misses = np.concatenate([[1.0], 1.0 - hits])
    false_alarms = np.concatenate([[0.0], false_alarms])
    thresholds = -np.concatenate([distinct[:1], distinct])
    gap = misses - false_alarms  # falls from 1 to -1
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])

    def between(curve: npt.NDArray[np.float64]) -> float:
        return float(curve[after - 1] + share * (curve[after] - curve[after - 1]))

    return EqualError(rate=between(false_alarms), threshold=between(thresholds))
