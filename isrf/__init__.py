"""Iterative Semantic Reasoning (arXiv 2603.13934): the method, and what the offline job and the service share.

`contract` defines what both halves agree on. `method` computes. Neither opens a file, except the Lua scripts of the
event log. `nn` is the torch part; only `offline` imports it. `runtime` opens files and native libraries for both.
"""

__version__ = "0.1.0"
