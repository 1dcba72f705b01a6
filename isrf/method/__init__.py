"""The method, Iterative Semantic Reasoning (arXiv 2603.13934): arrays in, arrays out.

It may import `isrf.contract`, numpy and pydantic. No module opens a file, a socket or a clock; callers pass in
callables for everything that must be read or run.
"""
