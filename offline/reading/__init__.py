"""The shop's files as tables: finds them, recognises how they are written, reads columns and values, counts bad rows.

It knows nothing of stages and releases. It may import `isrf.contract`, polars and orjson.
"""
