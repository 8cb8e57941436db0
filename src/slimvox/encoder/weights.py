"""Weights of an untrained encoder, and the hash of an encoder's weights."""

from __future__ import annotations

import hashlib
import json

import torch

from slimvox.encoder.model import SpeechEncoder
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.devices import seeded


def untrained_encoder(
    anatomy: EncoderAnatomy, dense_anatomy: EncoderAnatomy | None = None, *, seed: int
) -> SpeechEncoder:
    """An encoder with random weights, as before any training, in evaluation mode.

    Weights are drawn roughly as in the initialisation of these models: normal with a deviation of 0.02 in
    linear maps, Kaiming normal in convolutions, biases zero, norms one and zero. The global random state is restored
    afterwards.
    """
    with seeded(seed):
        encoder = SpeechEncoder(anatomy, dense_anatomy)
        for name, parameter in encoder.named_parameters():
            if parameter.dim() == 3:
                torch.nn.init.kaiming_normal_(parameter)
            elif parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(parameter)
    return encoder.eval()


def weights_hash(encoder: SpeechEncoder) -> str:
    """Hash of the weights and of everything else that determines an encoder's function, as hexadecimal text.

    It is the same for the same values in another precision or on another device.
    """
    digest = hashlib.sha256(json.dumps(encoder.anatomy.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
