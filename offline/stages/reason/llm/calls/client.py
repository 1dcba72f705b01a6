"""Defines the interface of an LLM client, and the client of servers with OpenAI's protocol.

    LlmClient.complete(call) -> Completion
    ├── UnavailableError   429, 5xx, a timeout, a broken connection: a retry may help; it costs nothing
    ├── RejectedError      the server does not accept this call (400, 413, 422): a retry cannot help; it costs nothing
    └── FatalError         the server accepts no call (401, 403, 404): the run ends

One call makes one HTTP request; `offline.stages.reason.llm.calls.retries` does the retries. The API key comes from the
environment (`OPENAI_API_KEY`) and goes to the server alone. The `openai` package reads address, key and account. The
requests go over an aiohttp session, because a run through the package's client took several times as long
(docs/lab-notebook.md): hundreds of calls in flight share one core.
"""

import math
import os
import time
import urllib.request
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import aiohttp
import openai
import orjson
import yarl
from pydantic import BaseModel, Field, ValidationError

from isrf.contract.errors import ConfigError
from offline.config import ReasonConfig
from offline.stages.reason.llm.prompting import Message
from offline.stages.reason.schemas import Step

NO_KEY = "none"
"""The client sends this if no key is set: local servers need none, and the header must not be empty."""

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_WAITING_STATUSES = frozenset({429, 503})
"""With these, a Retry-After says when the server accepts calls again."""

_FATAL_STATUSES = frozenset({401, 403, 404})

_QUOTED_CHARACTERS = 500
"""Length of the quotation from an error's body that does not follow the protocol."""


class LlmCall(NamedTuple):
    """One call: everything that its answer depends on, except the model and its settings."""

    messages: tuple[Message, ...]
    schema: type[Step]
    key: str  # the ledger's key; sent as Idempotency-Key


class Completion(NamedTuple):
    """The LLM's answer to one call."""

    text: str  # raw, with thoughts; empty if the model refused
    refusal: str
    tokens_in: int
    tokens_out: int
    latency_s: float


class UnavailableError(Exception):
    """The server cannot answer now."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RejectedError(Exception):
    """The server does not accept this call."""


class FatalError(Exception):
    """The server accepts no call with this configuration."""


class LlmClient(Protocol):
    """Sends one call to an LLM and returns its answer."""

    async def complete(self, call: LlmCall) -> Completion: ...
    async def close(self) -> None: ...


@cache
def _response_format_json(schema: type[Step]) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(response_format(schema)))


@cache
def response_format(schema: type[Step]) -> dict[str, Any]:
    """Returns the `response_format` that makes a chat completion follow the schema."""
    described = schema.model_json_schema()
    described.pop("description", None)
    return {"type": "json_schema", "json_schema": {"name": schema.__name__, "strict": True, "schema": described}}


def refuse_password(setting: str, url: str) -> None:
    """Raises `ConfigError` (`config.base_url`) if the address holds a password: the release records the address."""
    if urlsplit(url).password is not None:
        raise ConfigError(
            "config.base_url",
            f"{setting} holds a password, and the release records its configuration.",
            fix="Remove the password; set the environment variable OPENAI_API_KEY instead.",
        )


class OpenAIClient:
    """Client of any server with OpenAI's protocol, such as `vllm serve`. Use it from one event loop."""

    def __init__(self, config: ReasonConfig) -> None:
        """Raises `ConfigError` if the address holds a password."""
        refuse_password("reason.base_url", config.base_url)
        key = os.environ.get("OPENAI_API_KEY") or NO_KEY
        configured = openai.AsyncOpenAI(base_url=config.base_url, api_key=key)
        headers = {**configured.default_headers, **configured.auth_headers}
        self._headers = {
            name: value
            for name, value in headers.items()
            if isinstance(value, str) and not name.startswith("X-Stainless-")  # telemetry of the openai package
        }
        self._url = yarl.URL(f"{str(configured.base_url).rstrip('/')}/chat/completions")
        self._settings = {
            "model": config.model,
            "temperature": config.temperature,
            "max_completion_tokens": config.max_answer_tokens,
        }
        self._timeout_s = config.timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, call: LlmCall) -> Completion:
        """Makes one request; raises `UnavailableError`, `RejectedError` or `FatalError`."""
        started = time.monotonic()
        body = orjson.dumps({
            **self._settings,
            "messages": [message._asdict() for message in call.messages],
            "response_format": _response_format_json(call.schema),
        })  # fmt: skip
        try:
            async with self._open().post(self._url, data=body, headers={"Idempotency-Key": call.key}) as response:
                answer = await response.read()
        except TimeoutError as error:
            raise UnavailableError(f"timeout: nothing within {self._timeout_s:g} s") from error
        except aiohttp.ClientError as error:
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        if response.status != 200:
            raise _sort_status(response.status, answer, response.headers.get("retry-after"))
        return _read(answer, time.monotonic() - started)

    def _open(self) -> aiohttp.ClientSession:
        """Returns the session; creates it on first use, inside the event loop that uses it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the caller limits the calls in flight
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=_proxy(str(self._url)),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _proxy(url: str) -> str | None:
    """Returns the environment's proxy for this address; aiohttp itself would look it up for every call."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatCompletion(BaseModel):
    """The fields of a response that the client reads; servers add others."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


class _Error(BaseModel):
    message: str


class _ErrorBody(BaseModel):
    error: _Error


def _read(answer: bytes, latency_s: float) -> Completion:
    try:
        parsed = _ChatCompletion.model_validate_json(answer)
    except ValidationError as error:
        raise UnavailableError(f"unreadable response: {error.errors()[0]['msg']}") from error
    choice, usage = parsed.choices[0], parsed.usage or _Usage()
    return Completion(
        text=choice.message.content or "",
        refusal=choice.message.refusal or ("content filter" if choice.finish_reason == "content_filter" else ""),
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        latency_s=latency_s,
    )


def _sort_status(status: int, answer: bytes, retry_after: str | None) -> Exception:
    try:
        message = _ErrorBody.model_validate_json(answer).error.message
    except ValidationError:
        message = answer.decode(errors="replace")[:_QUOTED_CHARACTERS]
    text = f"HTTP {status}: {message}"
    if status in _FATAL_STATUSES:
        return FatalError(text)
    if status in _RETRIED_STATUSES or status >= 500:
        header = retry_after if status in _WAITING_STATUSES else None
        return UnavailableError(text, retry_after_s=read_retry_after(header, now=time.time()))
    return RejectedError(text)


def read_retry_after(header: str | None, *, now: float) -> float | None:
    """Returns the seconds to wait, from a number or an HTTP date; None for any other text. `now` is Unix time."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
