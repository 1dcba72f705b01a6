"""From candidates to an order: fusion of channels and its fit, the learned ranker, diversity.

It may import `isrf.contract` and the rest of `isrf.method`.
"""
