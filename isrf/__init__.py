"""The method: Iterative Semantic Reasoning (arXiv 2603.13934), free of IO.

Everything here takes arrays and returns arrays. No module opens a file, a socket or a clock; what must be read or run
is handed in as a callable. Two packages are exceptions: `isrf.nn`, the torch part, which `offline` alone imports, and
`isrf.runtime`, which opens files and native libraries for both halves. `isrf.contract.event_log` reads its own scripts
when it is imported.
"""

__version__ = "0.1.0"
