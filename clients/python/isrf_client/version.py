"""The client's own version, independent of the service's."""

__version__ = "0.1.0"
