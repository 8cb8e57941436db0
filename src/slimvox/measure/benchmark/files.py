"""Exported files to be timed, each model written once in each format."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from slimvox._version import __version__
from slimvox.encoder import SpeechEncoder
from slimvox.exporters import ExportFormat
from slimvox.exporters.calibration import Int8Speech
from slimvox.exporters.reference import Reference
from slimvox.exporters.run import failures_named
from slimvox.exporters.signature import Layers, Signature
from slimvox.measure.benchmark.contenders import INT8


class ExportedFiles:
    """Files in a folder, written when they are first needed. They are not compared with torch, as `export` does."""

    def __init__(self, folder: Path, layers: Layers = "all") -> None:
        """`layers`: hidden states that the files return."""
        self.folder = folder
        self.layers: Layers = layers
        self._references: dict[str, Reference] = {}
        self._files: dict[tuple[str, str], Path] = {}

    def file(self, model: str, load: Callable[[], SpeechEncoder], format: ExportFormat, backend: str) -> Path:
        """The file of a model for a backend; float32 and bfloat16 share one.

        Args:
            model: identifier of the model.
            load: called for the encoder, in float32 on the CPU, at the first file of the model.
            format: the backend's format.
            backend: name of the backend.
        """
        int8 = backend == format.name + INT8
        kind = backend if int8 else format.name
        if (model, kind) in self._files:
            return self._files[model, kind]
        if model not in self._references:
            signature = Signature(layers=self.layers, mask=False)
            self._references[model] = Reference(encoder=load().eval(), head=None, signature=signature)
        reference = self._references[model]
        path = self.folder / f"exported-{len(self._files)}-{format.name}{'-int8' * int8}{format.ending}"
        with failures_named(kind, path):
            if int8:
                plain = self.file(model, load, format, format.name)
                for source, target in (
                    (plain, path),
                    (format.companion(plain), format.companion(path)),
                ):
                    if source.exists():
                        shutil.copy(source, target)
                format.to_int8(path, Int8Speech((), reference).scales if format.calibrates_int8 else ())
            else:
                format.write(reference, path, metadata={"slimvox_version": __version__}, opset=None)
        self._files[model, kind] = path
        return path
