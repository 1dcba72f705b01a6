"""The routes, one module per resource: each parses the request, calls the service, and returns the response."""
