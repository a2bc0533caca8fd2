"""Export: a torch module with a flat parameter vector becomes ONNX, and ONNX becomes TFLite."""
