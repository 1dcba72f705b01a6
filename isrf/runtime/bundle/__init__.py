"""Opens a release bundle: verifies its files and checks its parts against each other.

It may import `isrf.method` and below.
"""
