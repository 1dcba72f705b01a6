"""An open release: catalogue, users and their histories, snapshots of active users, new items.

It may import `service.state`, `service.telemetry`, `service.settings` and `isrf`.
"""
