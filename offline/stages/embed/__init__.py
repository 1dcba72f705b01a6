"""The stage `embed`: turns the texts of items and users into semantic vectors.

`texts` collects the texts, `tfidf` fits the default encoder, `text_files` writes the torch-free encoder for the bundle,
`stage` reads and writes.
"""
