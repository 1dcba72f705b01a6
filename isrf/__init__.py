"""Iterative Semantic Reasoning (arXiv 2603.13934): the method, and what the offline job and the service share.

`contract` says what both halves agree on, `method` computes (neither opens a file, the Lua scripts of the event log
aside), `nn` is the torch part, which `offline` alone imports, and `runtime` opens files and native libraries for both.
"""

__version__ = "0.1.0"
