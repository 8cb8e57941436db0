"""`from_pretrained`, `save_pretrained` and `push_to_hub` of an encoder.

Reading and writing model directories is the work of `slimvox.checkpoint`, which builds on the encoder. The methods look
it up by name when they are called: an import statement would be circular, and would add all of that package to saved
directories, whose code is collected from the import statements.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, TypeVar

import torch

AnyEncoder = TypeVar("AnyEncoder", bound="PretrainedMethods")


def _checkpoint(function: str) -> Any:
    return getattr(importlib.import_module("slimvox.checkpoint"), function)


class PretrainedMethods:
    """Loading and saving under the names that the Hugging Face libraries use.

    It comes after `nn.Module` among the bases of a class, so that in the models for `transformers`, which have methods
    of these names already, those go first.
    """

    @classmethod
    def from_pretrained(
        cls: type[AnyEncoder],
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> AnyEncoder:
        """Load an encoder; the same as `slimvox.load`, which describes the arguments.

        Raises:
            SlimvoxError: if there is no such model, or it is not one that slimvox can read.
        """
        encoder: AnyEncoder = _checkpoint("load")(
            model,
            revision=revision,
            token=token,
            dtype=dtype,
            device=device,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return encoder

    def save_pretrained(self, directory: str | os.PathLike[str]) -> Path:
        """Write a directory that `slimvox.load`, `from_pretrained` and the Auto classes of `transformers` read.

        The model card, the kept indices and the information about the teacher are copied from the directory that the
        encoder was loaded from; the decoder of a Whisper comes from there too. An encoder without such a directory gets
        a short model card.

        Args:
            directory: created if it does not exist. Files of another model in it are replaced.

        Returns:
            The directory.

        Raises:
            SlimvoxError: if the directory cannot be written, the encoder has adapters or quantised weights, or the
                origin of a Whisper is no longer there.
        """
        path: Path = _checkpoint("save_encoder")(self, directory)
        return path

    def push_to_hub(
        self,
        name: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        commit_message: str = "Upload speech encoder",
    ) -> str:
        """Save to a model repository on the Hugging Face hub.

        Args:
            name: id of the repository, such as `me/wavlm-small`; created if it does not exist.
            revision: branch to commit to; by default the main branch.
            token: access token; by default the one that `hf auth login` stored.
            private: whether a new repository is private; by default as set for the account or organisation.
            commit_message: title of the commit.

        Returns:
            URL of the commit.

        Raises:
            SlimvoxError: if the hub cannot be reached or refuses the upload.
        """
        url: str = _checkpoint("push_encoder")(
            self, name, revision=revision, token=token, private=private, commit_message=commit_message
        )
        return url
