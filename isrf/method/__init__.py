"""The method, Iterative Semantic Reasoning (arXiv 2603.13934): arrays in, arrays out.

It may import `isrf.contract`, numpy and pydantic. No module opens a file, a socket or a clock; what must be read or run
is handed in as a callable.
"""
