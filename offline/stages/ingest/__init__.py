"""The stage `ingest`: a shop's two files become numbered, ordered, split tables. `stage` runs it."""
