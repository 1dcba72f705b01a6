"""The stage `embed`: the texts of items and users become semantic vectors.

`texts` says what is encoded, `tfidf` fits the default encoder, `text_files` writes its torch-free form for the bundle,
`stage` reads and writes.
"""
