"""An s3prl upstream: any encoder that slimvox can load, in the tasks and scripts of s3prl.

With s3prl (or its maintained fork, `espnet-s3prl`) installed as a package:

```python
from s3prl.nn import Featurizer, S3PRLUpstream
from slimvox.integrations.s3prl import register

register()
upstream = S3PRLUpstream("slimvox_local", path_or_url="runs/small")
```

In a clone of s3prl, for `run_downstream.py`, make a folder `s3prl/upstream/slimvox` of three files,

- `__init__.py`, empty,
- `expert.py`: `from slimvox.integrations.s3prl import UpstreamExpert`
- `hubconf.py`: `from slimvox.integrations.s3prl import slimvox_local`

add `from s3prl.upstream.slimvox.hubconf import *` to `s3prl/hub.py`, and run

```sh
python3 run_downstream.py -m train -n my_run -d ctc -c downstream/ctc/libriphone.yaml -u slimvox_local -k runs/small
```

slimvox does not import s3prl, except in `register`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from slimvox.checkpoint import load
from slimvox.util.errors import SlimvoxError

ENTRY = "slimvox_local"
"""The upstream's name in s3prl; s3prl assumes that names ending in `_local` need a path."""


class UpstreamExpert(nn.Module):
    """An encoder behind s3prl's upstream contract.

    Waveforms of different lengths are padded and masked, and normalised one by one if the model requires it (large
    models do), so an expert must be given raw waveforms. Training mode makes no difference to the outputs; the encoder
    can be trained.

    Attributes:
        model: the encoder.
    """

    def __init__(self, ckpt: str | Path, model_config: str | None = None, **options: Any) -> None:
        """Load.

        Args:
            ckpt: any argument of `slimvox.load`: a directory that slimvox wrote, `embedded`, or a `transformers`
                checkpoint.
            model_config: must not be given; the checkpoint describes the model.
            options: `refresh` and other arguments that s3prl passes to every upstream; ignored.

        Raises:
            SlimvoxError: if there is no such checkpoint, it cannot be read, or `model_config` is given.
        """
        super().__init__()
        if model_config:
            raise SlimvoxError(
                "a slimvox checkpoint describes its model, so leave out `-g` (`model_config`),"
                f" which is {model_config!r} instead"
            )
        self.model = load(str(ckpt))

    def get_downsample_rates(self, key: str | None = None) -> int:
        """Samples per frame, the same for every `key`: 320 for all published models."""
        return self.model.anatomy.hop

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Any]:
        """Encode waveforms.

        Args:
            wavs: 1-D each, 16 kHz, of any lengths. A batch too short for one frame is padded to one.

        Returns:
            `hidden_states`, layers + 1 tensors (batch, frames, width); `last_hidden_state`, the last of them; and each
            of them by its own key, `hidden_state_0` and so on. They are the encoder's `downstream_states`. Frames of
            padding hold nothing of meaning.

        Raises:
            ValueError: if there is no waveform, or one is not 1-D.
        """
        if not wavs or any(wav.dim() != 1 for wav in wavs):
            raise ValueError("`wavs` must hold one 1-D tensor (samples,) per utterance, and at least one")
        waveforms = pad_sequence([wav.float() for wav in wavs], batch_first=True)
        lengths = torch.tensor([len(wav) for wav in wavs], device=waveforms.device)
        missing = max(self.model.anatomy.receptive_field - waveforms.shape[1], 0)
        waveforms = nn.functional.pad(waveforms, (0, missing))
        mask = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths.unsqueeze(-1)
        output = self.model(waveforms, None if bool(mask.all()) else mask)
        states = list(output.downstream_states)
        named = {f"hidden_state_{index}": state for index, state in enumerate(states)}
        return {"hidden_states": states, "last_hidden_state": states[-1], **named}


def slimvox_local(ckpt: str | Path, *args: Any, **options: Any) -> UpstreamExpert:
    """The entry for s3prl's `hubconf.py`: an upstream from a checkpoint."""
    return UpstreamExpert(ckpt, *args, **options)


def register() -> None:
    """Register `slimvox_local` with an installed s3prl, for this process.

    Raises:
        SlimvoxError: if s3prl cannot be imported.
    """
    try:
        hub = importlib.import_module("s3prl.hub")
    except ImportError as error:
        raise SlimvoxError(
            f"s3prl cannot be imported ({error}); its maintained fork is installed by `pip install espnet-s3prl`"
        ) from error
    setattr(hub, ENTRY, slimvox_local)
