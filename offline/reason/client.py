"""What an LLM client is, and the OpenAI-compatible one.

    LlmClient.complete(call) -> Completion
    ├── UnavailableError   429, 5xx, a timeout, a broken connection: worth another try, not paid for
    ├── RejectedError      the server will not take this call (400, 413, 422): nothing to retry, nothing paid for
    └── FatalError         no call will work (401, 403, 404): the run ends

One call, one HTTP request: retries and their pauses are `offline.reason.calling`'s. The API key comes from the
environment (`OPENAI_API_KEY`) and goes nowhere else.
"""

import math
import os
import time
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel, Field, ValidationError

from isrf.errors import ConfigError
from offline.config import ReasonConfig
from offline.reason.prompting import Message
from offline.reason.schemas import Step

NO_KEY = "none"
"""Sent where no key is set: local servers ask for none, and the header must not be empty."""

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_WAITING_STATUSES = frozenset({429, 503})
"""Their Retry-After says when the server will take calls again."""

_FATAL_STATUSES = frozenset({401, 403, 404})


class Call(NamedTuple):
    """Everything an answer depends on, the model and its settings aside."""

    messages: tuple[Message, ...]
    schema: type[Step]
    key: str  # of the ledger; sent as Idempotency-Key


class Completion(NamedTuple):
    text: str  # raw, thoughts included; empty where the model refused
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
    """The server will not take this call."""


class FatalError(Exception):
    """The server will take no call as the run is configured."""


class LlmClient(Protocol):
    async def complete(self, call: Call) -> Completion: ...
    async def close(self) -> None: ...


@cache
def response_format(schema: type[Step]) -> dict[str, Any]:
    """`response_format` of a chat completion that must fit the schema."""
    described = schema.model_json_schema()
    described.pop("description", None)
    return {"type": "json_schema", "json_schema": {"name": schema.__name__, "strict": True, "schema": described}}


def refuse_password(setting: str, url: str) -> None:
    """Raises `ConfigError` (`config.base_url`) on an address that holds a password: the release records it."""
    if urlsplit(url).password is not None:
        raise ConfigError(
            "config.base_url",
            f"{setting} holds a password, and the release records its configuration.",
            fix="Put the key into the environment as OPENAI_API_KEY.",
        )


class OpenAIClient:
    """Any server that speaks the OpenAI protocol; `vllm serve` is the documented one."""

    def __init__(self, config: ReasonConfig) -> None:
        """Raises `ConfigError` on an address that holds a password."""
        refuse_password("reason.base_url", config.base_url)
        self._config = config
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=os.environ.get("OPENAI_API_KEY") or NO_KEY,
            timeout=config.timeout_s,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(timeout=config.timeout_s),  # half the CPU per call of httpx
        )

    async def complete(self, call: Call) -> Completion:
        """One request; raises `UnavailableError`, `RejectedError` or `FatalError`."""
        started = time.monotonic()
        try:
            answer = await self._client.post(
                "/chat/completions",  # chat.completions.create rewrites its arguments for a third of a call's CPU
                cast_to=object,  # the parsed JSON; building the package's response models takes a tenth of a call
                body={
                    "model": self._config.model,
                    "messages": [message._asdict() for message in call.messages],
                    "response_format": response_format(call.schema),
                    "temperature": self._config.temperature,
                    "max_completion_tokens": self._config.max_answer_tokens,
                },
                options={"headers": {"Idempotency-Key": call.key}},
            )
        except openai.APIStatusError as error:
            raise _sort_status(error) from error
        except openai.APIConnectionError as error:  # timeouts are connection errors here
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON
            raise UnavailableError(f"unreadable response: {error}") from error
        return _read(answer, time.monotonic() - started)

    async def close(self) -> None:
        await self._client.close()


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
    """What is read of a response; servers add their own."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _read(answer: object, latency_s: float) -> Completion:
    try:
        parsed = _ChatCompletion.model_validate(answer)
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


def _sort_status(error: openai.APIStatusError) -> Exception:
    status = error.status_code
    text = f"HTTP {status}: {error.message}"
    if status in _FATAL_STATUSES:
        return FatalError(text)
    if status in _RETRIED_STATUSES or status >= 500:
        header = error.response.headers.get("retry-after") if status in _WAITING_STATUSES else None
        return UnavailableError(text, retry_after_s=read_retry_after(header, now=time.time()))
    return RejectedError(text)


def read_retry_after(header: str | None, *, now: float) -> float | None:
    """Seconds from `now` (since 1970) of either form, a number or an HTTP date; None for what is neither."""
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
