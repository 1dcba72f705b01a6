"""The stage `train`: the encoder-decoder on every training prefix. `stage` runs it."""
