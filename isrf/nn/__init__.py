"""The torch part of the method: LightGCN, the encoder-decoder, its losses, the exportable search."""
