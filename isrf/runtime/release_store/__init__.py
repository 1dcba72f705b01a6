"""Releases in an object store: the location, its objects, the download into a local cache, the upload.

It may import `isrf.runtime` and below. The library `obstore` is imported only where a location is a URL.
"""
