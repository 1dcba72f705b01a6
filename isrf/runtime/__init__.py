"""Code for both halves that touches files and native libraries.

It may import `isrf.method` and `isrf.contract`, and never torch.
"""
