"""The torch part of the method: LightGCN, the encoder-decoder, its losses, and the search that is exported to ONNX."""
