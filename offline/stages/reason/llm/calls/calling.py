"""Calls that survive a night: bounded concurrency, retries with back-off, Retry-After for everybody, a circuit.

It knows clients and their three kinds of failure, and nothing of prompts, answers or ledgers.
"""

import asyncio
import random
from collections import Counter

from offline.stages.reason.llm.calls.client import (
    Completion,
    FatalError,
    LlmCall,
    LlmClient,
    RejectedError,
    UnavailableError,
)

MAX_BACK_OFF_S = 60.0
MAX_RETRY_AFTER_S = 600.0

MAX_ORDERED_WAIT_S = 600.0
"""What one call waits on the server's order while the server answers no call at all."""

MAX_TURN_WAIT_S = 3600.0
"""What one call waits on the server's order while others get their turn."""


class CircuitOpenError(Exception):
    """The server failed too often in a row, or takes no call at all: no further call is made."""


class RetryingCaller:
    """Makes calls through a client; `failures` counts what went wrong by kind, retried or not."""

    def __init__(
        self,
        client: LlmClient,
        *,
        concurrency: int,
        max_attempts: int,
        max_server_failures: int,
        back_off_s: float,
    ) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(concurrency)
        self._max_server_failures = max_server_failures
        self._failures_in_a_row = 0
        self._broken = ""
        self._resume_at = 0.0
        self._answered_at = 0.0
        self._back_off_s = back_off_s
        self._max_attempts = max_attempts
        self.failures: Counter[str] = Counter()

    async def call(self, call: LlmCall) -> Completion:
        """The answer; raises `UnavailableError` or `RejectedError` once given up, `CircuitOpenError` to end the run.

        Calls in flight when the circuit opens are waited for: they are paid for.
        """
        async with self._slots:
            if self._broken:
                raise CircuitOpenError(self._broken)
            try:
                completion = await self._retry(call)
            except FatalError as error:
                self._broken = str(error)
                raise CircuitOpenError(self._broken) from error
            except RejectedError:  # of this one call; whoever rejects is there
                self._failures_in_a_row = 0
                raise
            except UnavailableError as error:
                self._failures_in_a_row += 1
                if self._failures_in_a_row >= self._max_server_failures:
                    self._broken = f"{self._failures_in_a_row} calls in a row failed, the last one by {error}"
                    raise CircuitOpenError(self._broken) from error
                raise
            self._failures_in_a_row = 0
            return completion

    async def _retry(self, call: LlmCall) -> Completion:
        """Tries again after failures up to the attempts allowed; a wait that the server orders is no failure."""
        attempt, waits, waiting_since = 1, 0, 0.0
        now = asyncio.get_running_loop().time
        while True:  # tenacity took a tenth of a call's CPU
            try:
                return await self._once(call)
            except UnavailableError as error:
                if error.retry_after_s is None:
                    if attempt >= self._max_attempts:
                        raise
                    await asyncio.sleep(self._pause(attempt))
                    attempt += 1
                    continue
                waiting_since = waiting_since or now()
                others_answered = self._answered_at > waiting_since
                if now() - waiting_since >= (MAX_TURN_WAIT_S if others_answered else MAX_ORDERED_WAIT_S):
                    raise
                waits += 1  # `_once` waits until the server's own time, which may be now
                await asyncio.sleep(self._pause(waits if error.retry_after_s < self._back_off_s else 1))

    async def _once(self, call: LlmCall) -> Completion:
        now = asyncio.get_running_loop().time
        jitter_s = random.uniform(0.0, self._back_off_s)  # noqa: S311 - no secret
        while self._resume_at and now() < self._resume_at + jitter_s and not self._broken:
            await asyncio.sleep(min(self._resume_at + jitter_s - now(), 1.0))
        if self._broken:
            raise CircuitOpenError(self._broken)
        try:
            completion = await self._client.complete(call)
        except UnavailableError as error:
            self.failures[str(error).partition(":")[0]] += 1
            if error.retry_after_s is not None:  # it is the account that is limited, not this call
                self._resume_at = max(self._resume_at, now() + min(error.retry_after_s, MAX_RETRY_AFTER_S))
            raise
        except (RejectedError, FatalError) as error:
            self.failures[str(error).partition(":")[0]] += 1
            raise
        self._answered_at = now()
        return completion

    def _pause(self, attempt: int) -> float:
        """Seconds, doubled from attempt to attempt; spread, so that hundreds of calls do not come back at once."""
        longest = min(self._back_off_s * 2.0 ** (attempt - 1), MAX_BACK_OFF_S)
        return random.uniform(0.5, 1.0) * longest  # noqa: S311 - no secret
