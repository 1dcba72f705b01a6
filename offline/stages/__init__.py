"""The stages of a run, one package each; `offline.pipeline` defines their order.

`stage.py` has `VERSION`, which is raised when the output changes meaning, and `run(context)`.

They may import `offline.runtime`, the configuration and `isrf`, and each other's readers.
"""
