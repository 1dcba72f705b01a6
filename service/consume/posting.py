"""Posts events to a service over HTTP, and tells what may be sent again from what never will be taken."""

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from isrf.contract.errors import ConfigError

TIMEOUT_S = 60.0
_FIX = "See `python -m service consume --help`: --url, and ISRF_API_KEY with a key of the role write."
_VISIBLE = re.compile(r"[!-~]+")
_OF_THE_BODY = frozenset({400, 413, 415, 422})
_OF_THE_SETTINGS = frozenset({301, 302, 307, 308, 401, 403, 404, 405})


class AwayError(Exception):
    """The service cannot take events now: it is unreachable, too busy or without its store."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class BodyError(Exception):
    """The service refuses a body as a whole; the text is the problem's code."""


class Poster:
    """Posts to one service, a connection for each batch: the service may have been replaced since the last."""

    def __init__(self, url: str, key: str | None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Raises `ConfigError` for an address that is none, and for a key that no header can hold."""
        self._secure, self._host, self._port, path = _address(url)
        self._path, self._timeout_s = f"{path.rstrip('/')}/interactions", timeout_s
        if key is not None and _VISIBLE.fullmatch(key) is None:
            what = "the API key has a character that is no visible one of ASCII."
            raise ConfigError("config.consume_key", what, fix=_FIX)
        self._headers = {"Content-Type": "application/json"} | ({} if key is None else {"X-API-Key": key})

    def post(self, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, str]]:
        """Returns the result of each event; blocks.

        Raises:
            AwayError: send them again later.
            BodyError: sent again they will be refused again.
            ConfigError: the service does not know the caller, or the address is not that of a service.
        """
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request("POST", self._path, orjson.dumps({"events": list(events)}), self._headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise AwayError(type(error).__name__) from None
        finally:
            connection.close()
        if answer.status == http.client.OK:
            return _results(body, len(events))
        raise _error(answer.status, body, answer.headers.get("Retry-After", ""))


def _address(url: str) -> tuple[bool, str, int | None, str]:
    """Whether an address is one of https, its host, its port and its path; raises `ConfigError`."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and _VISIBLE.fullmatch(url):
            return parts.scheme == "https", parts.hostname, parts.port, parts.path
    except ValueError:
        pass  # no host between brackets, or no port
    raise ConfigError("config.consume_url", f"{url[:100]!r} is no address of a service.", fix=_FIX)


def _results(body: bytes, count: int) -> list[Mapping[str, str]]:
    try:
        results: list[Mapping[str, str]] = json.loads(body)["results"]
        if len(results) != count:
            raise ValueError("as many results as events")
    except (ValueError, KeyError, TypeError):
        raise ConfigError("config.consume_url", "what answers at the address is no service.", fix=_FIX) from None
    return results


def _error(status: int, body: bytes, retry_after: str) -> Exception:
    try:
        code = str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        code = f"http.{status}"
    if status in _OF_THE_SETTINGS:
        return ConfigError("config.consume_refused", f"the service answers {status} {code}.", fix=_FIX)
    if status in _OF_THE_BODY:
        return BodyError(code)
    return AwayError(code, float(retry_after) if retry_after.isdigit() else 0.0)
