"""What both clients tell httpx: where the service is, who calls, and how a call becomes a request."""

from typing import Any

import httpx

from isrf_client.attempts import Try

AGENT = "isrf-client/0.1.0"


def checked_url(base_url: str) -> str:
    """The service's address without a slash at its end; a path in it (a gateway's) is kept."""
    url = httpx.URL(base_url)
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise ValueError("base_url is http(s)://host[:port][/path]")
    return base_url.rstrip("/")


def headers_for(api_key: str | None) -> dict[str, str]:
    headers = {"User-Agent": AGENT}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable() or not api_key.strip():
            raise ValueError("api_key is not what `python -m service keys add` made")
        headers["X-API-Key"] = api_key.strip()
    return headers


def request_of(step: Try, base_url: str) -> dict[str, Any]:
    """Arguments for httpx's `request`."""
    call = step.call
    return {
        "method": call.method,
        "url": base_url + call.path,
        "params": call.params or None,
        "json": call.body,
        "timeout": step.timeout_s,
    }
