"""The stage `compile`: exports the trained model as ONNX graphs, in fp32, fp16 and 8 bits."""
