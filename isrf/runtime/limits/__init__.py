"""Limits of time: of one run of a graph (`run_limit`), and of opening a release (`time_limit`).

It may import `isrf.contract`.
"""
