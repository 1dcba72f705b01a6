"""Kinds of list: what a placement may show, each as a function of arrays or of one snapshot.

A function returns the best allowed items, fewer where it finds no more; whoever asks fills the rest. It may import
`isrf.method`, `service.release` and the types of `service.recommend.query_models`.
"""
