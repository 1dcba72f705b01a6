"""What both halves agree on: errors, ids, the bundle's manifest, the event log, a shop's items and event types.

It may import numpy and pydantic and nothing else, and it opens no file but the Lua scripts beside it.
"""
