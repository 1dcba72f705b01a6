"""Users in Redis.

user_store    the store
commands      what is sent for a user, and what comes back
event_writes  claims of event ids (claims), then one script per bucket with all effects of its events
erasure       tombstones of erased users
recent        who was active lately
everything    all users and accepted events, page by page
"""
