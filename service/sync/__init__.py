"""Keeps a replica up to date: releases, catalogue, active users, compaction of state, durability of Redis.

It may import `service.recommend` and below.
"""
