"""An open release: catalogue, users and their histories, snapshots of active users, new items, counted events.

It may import `service.state`, `service.telemetry`, `service.settings` and `isrf`.
"""
