"""Encoders to load weights into, without the time that random weights take."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode

from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError, reason_of


class _WithoutInitialisation(TorchFunctionMode):
    """Context in which the functions of `torch.nn.init` do not change their tensor."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def empty_encoder(anatomy: EncoderAnatomy, dense_anatomy: EncoderAnatomy | None = None) -> SpeechEncoder:
    """An encoder whose parameters hold whatever was in memory: every one must be loaded.

    It is ready in a twentieth of the time; its buffers have their proper values.

    Raises:
        SlimvoxError: if there is not enough memory for an encoder of this size.
    """
    try:
        with _WithoutInitialisation():
            return SpeechEncoder(anatomy, dense_anatomy)
    except (
        RuntimeError,
        MemoryError,
        OverflowError,
    ) as error:  # raised by torch for sizes beyond any memory
        raise SlimvoxError(
            f"an encoder of the sizes in config.json cannot be built: {reason_of(error)}"
        ) from error
