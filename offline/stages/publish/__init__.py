"""The stage `export`: puts a release bundle together from the outputs of all stages."""
