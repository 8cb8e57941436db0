"""Choice of the hidden states that are returned or written."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from torch import Tensor

from slimvox.encoder.model import EncoderOutput
from slimvox.util.errors import SlimvoxError

Layers: TypeAlias = Literal["last"] | tuple[int, ...]
"""`last`, the encoder's `last_hidden_state`; or numbers of hidden states, 0 for the input of the first layer."""


def parse_layers(layers: str | int | Iterable[int], count: int) -> Layers:
    """The requested hidden states; numbers in order, each once.

    Args:
        layers: `all`, `last`, a number, numbers, or a string of numbers separated by commas.
        count: number of layers of the encoder, which has one more hidden state.

    Raises:
        SlimvoxError: if there are none, or one is not a number from 0 to `count`.
    """
    valid = f"`layers` must be `all`, `last` or numbers from 0 to {count} with commas between them"
    if isinstance(layers, str):
        name = layers.strip()
        if name == "last":
            return "last"
        if name == "all":
            return tuple(range(count + 1))
    try:
        numbers = [int(part) for part in layers.split(",")] if isinstance(layers, str) else _integers(layers)
    except (TypeError, ValueError):
        raise SlimvoxError(f"{valid}, but is {reprlib.repr(layers)} instead") from None
    wrong = [number for number in numbers if not 0 <= number <= count]
    if wrong or not numbers:
        raise SlimvoxError(f"{valid}, but {'there are none' if not wrong else f'one is {wrong[0]}'}")
    return tuple(sorted(set(numbers)))


def _integers(values: Any) -> list[int]:
    """One integer or several, of any type, numpy's and torch's among them; TypeError for `True`, 1.0 and others."""
    try:
        found = list(values)
    except TypeError:
        found = [values]
    if any(isinstance(each, bool) for each in found):
        raise TypeError
    return [operator.index(each) for each in found]


def state_names(layers: Layers) -> tuple[str, ...]:
    """Names of the chosen hidden states: `layer_00` and so on, or `last_hidden_state`."""
    return ("last_hidden_state",) if layers == "last" else tuple(f"layer_{number:02d}" for number in layers)


def chosen_states(output: EncoderOutput, layers: Layers) -> tuple[Tensor, ...]:
    """The chosen hidden states, each (batch, frames, width)."""
    if layers == "last":
        return (output.last_hidden_state,)
    return tuple(output.hidden_states[number] for number in layers)
