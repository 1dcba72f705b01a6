"""The stage `export`: assembles a release bundle from the outputs of all stages."""
