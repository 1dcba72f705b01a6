"""The client's own version: it changes when the client does, whatever the service's is."""

__version__ = "0.1.0"
