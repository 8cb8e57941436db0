"""Errors of int8 in the outputs of an exported model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slimvox.exporters.accuracy import relative_errors
from slimvox.exporters.base import Program
from slimvox.exporters.calibration import Clips
from slimvox.exporters.reference import Reference
from slimvox.util.errors import SlimvoxError

DEFAULT_MAX_ERROR = 0.05
"""Largest mean relative error of an int8 file that is accepted by default.

It is three times the error of the embedded teacher and of an encoder pruned from it (means of 1.3 and 1.5 %, worst
layer 1.7 %), and a fifth of the error of a faulty file: with the front end in int8, the error is 25 %.
"""


@dataclass(frozen=True, kw_only=True)
class Int8Errors:
    """||int8 - float32|| / ||float32|| of each output, over all frames of some clips."""

    states: dict[str, float]
    """Error of each hidden state, by name."""
    head: dict[str, float]
    """Error of each output of the task head, by name."""
    source: str = "the embedded speech"
    """Description of the clips."""

    @property
    def mean_of_states(self) -> float | None:
        """The mean over the hidden states; None if no hidden state is returned."""
        return float(np.mean([*self.states.values()])) if self.states else None

    @property
    def judged(self) -> dict[str, float]:
        """Errors that `max_error` limits, each separately."""
        mean = self.mean_of_states
        return ({} if mean is None else {"hidden states": mean}) | self.head

    def check(self, max_error: float, *, force: bool) -> None:
        """Raise SlimvoxError if an error exceeds `max_error`, unless forced."""
        wrong = {name: error for name, error in self.judged.items() if not error <= max_error}
        if wrong and not force:
            changes = ", ".join(f"the {name} by {error:.1%}" for name, error in wrong.items())
            raise SlimvoxError(
                f"int8 changes {changes} on {self.source} (mean relative error), more than {max_error:.1%}; the file"
                " was removed: export float32, or accept it with --max-error or --force"
            )


def measured_errors(program: Program, reference: Reference, clips: Clips, source: str) -> Int8Errors:
    """The errors of a quantised file on some clips, of which `source` is a description."""
    errors = relative_errors(program, reference, clips)
    head = reference.signature.head
    return Int8Errors(
        states={name: error for name, error in errors.items() if name not in head},
        head={name: errors[name] for name in head},
        source=source,
    )
