"""Bulk imports and exports as JSON Lines, read and written in pieces; it may import `service.api.validation`."""
