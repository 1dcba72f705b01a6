"""Writes every user's list to one file: `python -m offline recommend --users all --out lists.parquet`.

The service itself makes the lists: one that runs (`--service URL`), or a private one that the command starts on a
release and ends again. So there is one implementation of an answer, and this package holds none.

    command          the options
    users            whose lists are made
    private_service  starts a service of one release, and ends it
    calls            one call to a service, again where it cannot answer now
    list_client      asks a service for lists
    parts            what a run has made so far, so that a second run goes on there
    output           one file from the parts
    run              all of it, in order
"""
