"""Keeps a replica up to date: releases, catalogue, active users, live evidence, compaction, durability of Redis.

It may import `service.recommend` and below.
"""
