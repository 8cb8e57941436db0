"""Hash of an encoder, by which results of one encoder are told from those of another."""

from __future__ import annotations

import hashlib
import json

from slimvox.encoder import SpeechEncoder


def weights_hash(encoder: SpeechEncoder) -> str:
    """Hash of the weights and of everything else that decides what an encoder computes, as hexadecimal text.

    It is the same for the same values in another precision or on another device.
    """
    digest = hashlib.sha256(json.dumps(encoder.anatomy.to_dict(), sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
