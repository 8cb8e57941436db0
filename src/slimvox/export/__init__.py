"""Encoders as files that run without slimvox: ONNX, float32 or int8, and `torch.export`."""

from slimvox.export.int8 import Int8Errors
from slimvox.export.run import ExportResult, Format, export_encoder
from slimvox.export.signature import Layers

__all__ = ["ExportResult", "Format", "Int8Errors", "Layers", "export_encoder"]
