"""What touches files and native libraries for both halves, written once.

It may import `isrf.method` and `isrf.contract`, and never torch.
"""
