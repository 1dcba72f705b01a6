"""Golden answers: requests and items with what the release answered for them when it was made.

Arrays in, arrays out; it may import the other modules of `isrf.method`.
"""
