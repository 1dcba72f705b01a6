"""Keeps a replica up to date: releases, catalogue, active users, compaction of state, the durability of Redis.

It may import `service.recommend` and below.
"""
