"""The workbench: a child process that holds torch and onnx, so that the server never loads them."""
