"""Encoders as files that run without slimvox: ONNX, float32 or int8, and `torch.export`."""

from slimvox.exporters.int8 import Int8Errors
from slimvox.exporters.run import ExportResult, Format, export, export_encoder
from slimvox.exporters.signature import Layers

__all__ = ["ExportResult", "Format", "Int8Errors", "Layers", "export", "export_encoder"]
