"""Plays a period's events through the recommender in time order. It may import all of offline."""
