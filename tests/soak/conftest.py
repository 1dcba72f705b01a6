"""The service tests' servers."""

from tests.service.conftest import own_redis

__all__ = ["own_redis"]
