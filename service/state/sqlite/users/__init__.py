"""Stores users' state in the embedded store.

user_store    the store, and what the process keeps of users in memory
entries       reads the accepted events in order
held_records  a cache of users' records
effects       applies events to the tables
followed      finds the items that an event followed
tables        reads, erases and compacts users in the tables
erased_ids    event ids of erased users, for a day
clock         a clock that is never set back
"""
