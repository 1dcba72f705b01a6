"""Users in the embedded store.

user_store    the store, and what the process holds ready of users
held_records  users' records that are held ready
effects       what events do to the tables
tables        a user's record out of the tables, erasure, collection
erased_ids    event ids of erased users, for a day
clock         the time by which the store remembers
"""
