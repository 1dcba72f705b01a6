"""Files of shop systems as the folder of the data contract: an importer for each system, and what they share.

An importer yields items and events and opens its files through `offline.importers.rows`; it writes nothing. A package
of a shop's own adds one by the entry-point group `isrf.importers`. It may import `isrf.contract`, `isrf.runtime` and
`offline.reading`.
"""
