"""Tables of events that may be larger than memory: held in parts by user, and what is done to one part at a time.

It may import `offline.reading` and the tables of one part's rows in `offline.stages.ingest`.
"""
