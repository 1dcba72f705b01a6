"""The stages of a run, one package each, in the order that `offline.pipeline` says.

`stage.py` has `VERSION`, raised when the output changes meaning, and `run(context)`.

They may import `offline.runtime`, the configuration and `isrf`, and each other's readers.
"""
