"""What touches files and native libraries for both halves, written once: a release's, and secrets in files.

It may import the method (`isrf.*`) and neither half, no torch, no web framework.
"""
