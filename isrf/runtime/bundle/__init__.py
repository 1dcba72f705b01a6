"""Opens a release bundle: verified once, every part held against the others. It may import `isrf.method` and below."""
