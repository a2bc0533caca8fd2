"""Recipes: architecture, loss, public sets, export to ONNX and TFLite, quantisation and the gate."""
