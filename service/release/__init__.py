"""A release as the service holds it: catalogue, users and their histories, the snapshot of a request, new items.

It may import `service.state`, `service.telemetry`, `service.settings` and `isrf`.
"""
