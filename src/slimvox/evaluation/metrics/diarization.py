"""Diarization error rate, frame by frame: no collar, overlaps count, errors of all recordings pooled.

SUPERB publishes this rate. Its scorer, dscore, works on speaker turns that were made from frame-wise decisions, with a
collar of 0 and overlaps included. For turns that begin and end with frames, this is the same as counting frames. The
speakers of a hypothesis are matched with those of the reference once per recording, by the assignment with the fewest
errors.

pyannote.metrics gives the same rates (tested), but takes 7 ms instead of 0.2 ms for a recording of 15 s, and ten rates
are computed where threshold and filter are chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Activity = npt.NDArray[np.bool_]
"""Activity of the speakers, (frames, speakers)."""


@dataclass(frozen=True, kw_only=True)
class DiarizationErrors:
    """Frames, counted once per speaker that speaks in them."""

    scored: int = 0
    """Frames of speech in the reference."""
    missed: int = 0
    false_alarms: int = 0
    confused: int = 0
    """Frames of speech assigned to the wrong speaker."""

    @property
    def wrong(self) -> int:
        """All errors together."""
        return self.missed + self.false_alarms + self.confused

    @property
    def rate(self) -> float:
        """Errors per frame of speech; can exceed 1.

        Raises:
            ValueError: if there is no speech in the reference.
        """
        if self.scored == 0:
            raise ValueError("nobody speaks in the references, so there is nothing to measure against")
        return self.wrong / self.scored

    def __add__(self, other: DiarizationErrors) -> DiarizationErrors:
        return DiarizationErrors(
            scored=self.scored + other.scored,
            missed=self.missed + other.missed,
            false_alarms=self.false_alarms + other.false_alarms,
            confused=self.confused + other.confused,
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Threshold and filter that turn speech probabilities into decisions."""

    threshold: float
    median: int
    """Length of the median filter over time, in frames, odd; 1 for none."""


def decide(probabilities: npt.ArrayLike, decision: Decision) -> Activity:
    """Decisions from a threshold, smoothed by a median filter over time.

    Args:
        probabilities: (frames, speakers), 0 to 1.
        decision: threshold and length of the filter. Beyond either end nobody speaks.

    Raises:
        ValueError: if the filter's length is not odd.
    """
    if decision.median < 1 or decision.median % 2 == 0:
        raise ValueError(f"`median` must be odd and positive, but is {decision.median} instead")
    active = np.asarray(probabilities) > decision.threshold
    half = decision.median // 2
    if half == 0 or not active.size:
        return active
    padded = np.pad(active.astype(np.int64), ((half + 1, half), (0, 0)))
    sums = np.cumsum(padded, axis=0)
    majority: Activity = sums[decision.median :] - sums[: -decision.median] > half
    return majority


def diarization_errors(reference: Activity, guess: Activity) -> DiarizationErrors:
    """Errors in one recording, under the best matching of speakers.

    Args:
        reference: (frames, speakers).
        guess: (frames, speakers); the number of speakers may differ, that of frames may not.

    Raises:
        ValueError: if the numbers of frames differ.
    """
    if reference.ndim != 2 or guess.ndim != 2 or len(reference) != len(guess):
        raise ValueError(
            f"`reference` and `guess` must be (frames, speakers), but are {reference.shape} and {guess.shape}"
        )
    from scipy.optimize import linear_sum_assignment

    together = reference.T.astype(np.int64) @ guess.astype(np.int64)
    right = int(together[linear_sum_assignment(together, maximize=True)].sum())
    speaking, guessed = reference.sum(axis=1), guess.sum(axis=1)
    return DiarizationErrors(
        scored=int(speaking.sum()),
        missed=int(np.maximum(speaking - guessed, 0).sum()),
        false_alarms=int(np.maximum(guessed - speaking, 0).sum()),
        confused=int(np.minimum(speaking, guessed).sum()) - right,
    )


def diarization_error_rate(references: Sequence[Activity], guesses: Sequence[Activity]) -> float:
    """Diarization error rate over all recordings: all errors / all frames of speech.

    Raises:
        ValueError: if nobody speaks in the references, or shapes do not fit.
    """
    pairs = zip(references, guesses, strict=True)
    return sum((diarization_errors(*pair) for pair in pairs), DiarizationErrors()).rate


def best_decision(
    references: Sequence[Activity],
    probabilities: Sequence[npt.ArrayLike],
    *,
    thresholds: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7),
    medians: Sequence[int] = (1, 11),
) -> tuple[Decision, float]:
    """The decision of lowest diarization error rate (the first of several), and that rate; to be chosen on dev.

    Raises:
        ValueError: if nobody speaks in the references, or shapes do not fit.
    """
    decisions = [
        Decision(threshold=threshold, median=median) for median in medians for threshold in thresholds
    ]
    rates = [
        diarization_error_rate(references, [decide(each, decision) for each in probabilities])
        for decision in decisions
    ]
    best = int(np.argmin(rates))
    return decisions[best], rates[best]
