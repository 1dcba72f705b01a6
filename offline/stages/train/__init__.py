"""The stage `train`: trains the encoder-decoder on every training prefix. `stage` runs it."""
