"""What a browser would be made to do to a service in development mode, which knows no keys: foreign pages are refused.

A page may send what it likes to an address of this machine, and a name of its own may be made to lead here. So requests
are answered under names that can be nobody else's, and a page of another origin changes nothing.
"""

import re
from collections.abc import Collection
from functools import lru_cache

from isrf.contract.errors import AccessError
from service.settings import is_loopback

_JUDGED = frozenset({b"host", b"origin"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]*)(:[0-9]*)?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(?P<host>.*)", re.IGNORECASE)


def check_page(method: str, headers: Collection[tuple[bytes, bytes]], known_origins: Collection[str]) -> None:
    """Raises `AccessError` for a request in development mode that a foreign page may have caused.

    Args:
        known_origins: of other pages that may call, as settings name them.
    """
    for name, value in headers:
        if name not in _JUDGED:
            continue
        text = value.decode("latin-1")
        if name == b"host" and not _is_ours(text):
            raise AccessError(
                "access.foreign_host",
                f"in development mode only this machine's own names are answered, not {text[:80]!r}.",
                fix="Call 127.0.0.1, localhost or [::1]; or set ISRF_API_KEYS_FILE, and every name is answered.",
            )
        if name == b"origin" and method not in _READING and not _may_write(text, known_origins):
            raise AccessError(
                "access.foreign_origin",
                f"in development mode no page of {text[:80]!r} may change anything.",
                fix="Name the page in ISRF_CORS_ORIGINS, or open one of this machine's own.",
            )


@lru_cache(maxsize=16)
def _is_ours(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found["name"])


def _may_write(origin: str, known_origins: Collection[str]) -> bool:
    found = _ORIGIN.fullmatch(origin)
    return found is not None and (_is_ours(found["host"]) or origin.lower() in known_origins)
