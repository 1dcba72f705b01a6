"""The HTTP server: limits of the protocol, access, load shedding, middleware, graceful shutdown.

It may import everything in `service` but `service.app` and `service.__main__`.
"""
