"""The stage `ingest`: turns a shop's two files into numbered, ordered, split tables. `stage` runs it."""
