"""Stores users' state in Redis.

user_store    the store
commands      builds the commands for a user, and reads their answers
event_writes  claims event ids (claims), then runs one script per bucket with all effects of its events
erasure       tombstones of erased users
recent        recently active users
entries       accepted events of some buckets in order
everything    all users and accepted events, page by page
"""
