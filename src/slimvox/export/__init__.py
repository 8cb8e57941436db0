"""Encoders as files that run without slimvox: ONNX, float32 or int8, and `torch.export`."""

from slimvox.export.run import ExportResult, Format, Layers, export_encoder

__all__ = ["ExportResult", "Format", "Layers", "export_encoder"]
