"""The stages of a run, one package each. `stage.py` in it has `VERSION` and `run(context)`; `offline.pipeline` orders them.

They may import `offline.runtime`, the configuration and `isrf`, and each other's readers.
"""
