"""Who may send a beacon: a page of an allowed origin with a browser's key, which may stand in the query.

`navigator.sendBeacon` and images send no headers of a page's own, so their key is the parameter `key`. Anybody can read
it from the page's source: it lets a caller write events of sessions, and nothing else (`service.auth.keys`).
"""

import hashlib
import ipaddress
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from isrf.contract.errors import AccessError
from service.auth.browsers import may_write

BEACON, PIXEL = "/beacon", "/pixel.gif"
BEACON_PATHS = frozenset({BEACON, PIXEL})
KEY_PARAMETER = b"key="
KEY_HEADER = b"x-api-key"
_RAW_PATHS = frozenset(path.encode() for path in BEACON_PATHS)
_OTHER_SITES = frozenset({b"cross-site", b"same-site"})
_IPV6_PREFIX = 64
"""Bits of an IPv6 address that a network gives to one customer."""


def presented_keys(path: bytes, query: bytes, headers: Collection[tuple[bytes, bytes]]) -> Sequence[bytes]:
    """The API keys of a request: those of its headers, and in a beacon those of its query."""
    keys = [value for name, value in headers if name == KEY_HEADER]
    if path in _RAW_PATHS:
        keys += [part.removeprefix(KEY_PARAMETER) for part in query.split(b"&") if part.startswith(KEY_PARAMETER)]
    return keys


def check_sender(
    headers: Collection[tuple[bytes, bytes]], known_origins: Collection[str], *, without_keys: bool
) -> None:
    """Raises `AccessError` where a beacon comes from a page that may send none.

    Args:
        known_origins: the origins that may, from the settings; this machine's own pages may in development mode.
        without_keys: whether the service has no keys, so that nothing else tells a foreign page apart.
    """
    found = {name: value for name, value in headers if name in (b"origin", b"referer", b"sec-fetch-site")}
    origin = found[b"origin"].decode("latin-1") if b"origin" in found else _origin(found.get(b"referer"))
    if origin is None:
        if without_keys and found.get(b"sec-fetch-site") in _OTHER_SITES:
            raise _foreign("an unnamed origin")
        return
    if origin.lower() not in known_origins and not (without_keys and may_write(origin, ())):
        raise _foreign(repr(origin[:80]))


def network_of(address: str) -> str:
    """A name for where a caller comes from: equal for all addresses of one customer, and not the address itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        network = address
    else:
        bits = _IPV6_PREFIX if found.version == 6 else found.max_prefixlen
        network = str(ipaddress.ip_network((found, bits), strict=False))
    return hashlib.blake2b(network.encode(), digest_size=8).hexdigest()


def _origin(referer: bytes | None) -> str | None:
    """The origin of a page's address; None where there is none."""
    if referer is None:
        return None
    try:
        parts = urlsplit(referer.decode("latin-1"))
    except ValueError:
        return "null"
    return f"{parts.scheme}://{parts.netloc}"


def _foreign(whose: str) -> AccessError:
    return AccessError(
        "access.foreign_origin",
        f"pages of {whose} may not send events.",
        fix="Add the origin to ISRF_BEACON_ORIGINS; pages need a referrer policy that sends it with images.",
    )
