"""Open ONNX sessions and predict with them."""
