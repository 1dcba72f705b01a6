"""The method: Iterative Semantic Reasoning (arXiv 2603.13934), free of IO.

Everything here takes arrays and returns arrays. No module opens a file, a socket or a clock; what must be
read or run is handed in as a callable. `isrf.nn` is the torch part and is imported by `offline` alone.
"""

__version__ = "0.1.0"
