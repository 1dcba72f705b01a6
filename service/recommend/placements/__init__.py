"""Placements: the named lists of a shop's pages, what they are made of, and how their lists are filled.

It may import the other modules of `service.recommend`, except the recommender, which uses it.
"""
