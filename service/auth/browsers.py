"""Refuses requests that foreign web pages cause in development mode, which has no API keys.

A page in a browser can send requests to an address of this machine, and a foreign host name can be pointed at it. So
the service answers only under this machine's own names, and refuses writes from pages of other origins.
"""

import re
from collections.abc import Collection
from functools import lru_cache

from isrf.contract.errors import AccessError
from service.settings import is_loopback

_CHECKED_HEADERS = frozenset({b"host", b"origin"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]*)(:[0-9]*)?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(?P<host>.*)", re.IGNORECASE)


def check_page(method: str, headers: Collection[tuple[bytes, bytes]], known_origins: Collection[str]) -> None:
    """Raises `AccessError` for a request in development mode that a foreign page may have caused.

    Args:
        known_origins: origins of other pages that may call, from the settings.
    """
    for name, value in headers:
        if name not in _CHECKED_HEADERS:
            continue
        text = value.decode("latin-1")
        if name == b"host" and not _is_own_name(text):
            raise AccessError(
                "access.foreign_host",
                f"in development mode the service answers only under this machine's own names, not {text[:80]!r}.",
                fix="Call 127.0.0.1, localhost or [::1]; or set ISRF_API_KEYS_FILE to answer under every name.",
            )
        if name == b"origin" and method not in _READING and not may_write(text, known_origins):
            raise AccessError(
                "access.foreign_origin",
                f"in development mode pages of {text[:80]!r} may not write.",
                fix="Add the origin to ISRF_CORS_ORIGINS, or open a page of this machine.",
            )


@lru_cache(maxsize=16)
def _is_own_name(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found["name"])


def may_write(origin: str, known_origins: Collection[str]) -> bool:
    """Whether pages of an origin may write in development mode: this machine's own, and the known ones."""
    found = _ORIGIN.fullmatch(origin)
    return found is not None and (_is_own_name(found["host"]) or origin.lower() in known_origins)
