"""The command `inspect`: shows how a shop's folder is read, and whether a run would work; changes nothing.

It may import the stage `ingest`, the preconditions of a run, and what lies below them.
"""
