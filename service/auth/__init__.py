"""API keys, roles, rate limits and request costs. It may import `service.telemetry`, `service.settings` and `isrf`."""
