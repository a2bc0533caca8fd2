"""Quantisation to int8 with calibration on a recipe's public set, one file per engine."""

from hedgerow.models.quantise.litert import quantise_tflite
from hedgerow.models.quantise.onnxruntime import quantise_onnx

__all__ = ["quantise_onnx", "quantise_tflite"]
