"""Kinds of list besides a user's own: similar items, items taken together, items that are bought again.

Arrays in, arrays out; it may import the other modules of `isrf.method`.
"""
