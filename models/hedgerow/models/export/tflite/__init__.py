"""ONNX to TFLite, one file per kind of operator; ``convert`` is the way in."""

from hedgerow.models.export.tflite.convert import convert, supported_operators

__all__ = ["convert", "supported_operators"]
