"""What several stages and commands share: devices, indexes, graphs, an opened release, secrets, locks.

It may import `offline.config`, `offline.context` and `isrf`.
"""
