"""API keys, roles, rates and what a request costs. It may import `service.telemetry`, `service.settings` and `isrf`."""
