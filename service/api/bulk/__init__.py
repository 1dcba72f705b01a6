"""Many lines in one call, as JSON Lines: written and read piece by piece. It may import `service.api.validation`."""
