"""Metrics, traces and logs. It may import `isrf.contract` and nothing of the service."""
