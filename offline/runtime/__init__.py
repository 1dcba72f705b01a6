"""Code that several stages and commands share: devices, graphs, an opened release, evidence lists, secrets, locks.

It may import `offline.config`, `offline.context` and `isrf`.
"""
