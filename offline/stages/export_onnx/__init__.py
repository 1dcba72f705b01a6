"""The stage `compile`: turns the trained model into ONNX graphs, in fp32, fp16 and 8 bits."""
