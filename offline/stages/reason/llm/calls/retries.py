"""Makes calls with bounded concurrency, retries and back-off; stops calling once the server fails too often.

A Retry-After from the server holds back all calls. It knows clients and their three kinds of failure, and nothing of
prompts, answers or ledgers.
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
"""The longest that a call waits on the server's Retry-After while the server answers no call at all."""

MAX_TURN_WAIT_S = 3600.0
"""The longest that a call waits on the server's Retry-After while the server answers other calls."""


class CircuitOpenError(Exception):
    """The server failed too often in a row or accepts no call: the caller makes no further call."""


class RetryingCaller:
    """Makes calls through a client; `failures` counts the failures by kind, retried or not."""

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
        """Returns the answer.

        Calls in flight when the circuit opens still run to their end, because they are paid for.

        Raises:
            UnavailableError: the server did not answer, after all retries.
            RejectedError: the server does not accept this call.
            CircuitOpenError: the run has to end.
        """
        async with self._slots:
            if self._broken:
                raise CircuitOpenError(self._broken)
            try:
                completion = await self._retry(call)
            except FatalError as error:
                self._broken = str(error)
                raise CircuitOpenError(self._broken) from error
            except RejectedError:  # a server that rejects a call is up
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
        """Retries up to the allowed attempts; a wait that the server asks for does not count as one."""
        attempt, waits, waiting_since = 1, 0, 0.0
        now = asyncio.get_running_loop().time
        while True:  # the library tenacity took a tenth of a call's CPU
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
                waits += 1  # `_once` waits until the time that the server names
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
            if error.retry_after_s is not None:  # the limit is the account's, so all calls wait
                self._resume_at = max(self._resume_at, now() + min(error.retry_after_s, MAX_RETRY_AFTER_S))
            raise
        except (RejectedError, FatalError) as error:
            self.failures[str(error).partition(":")[0]] += 1
            raise
        self._answered_at = now()
        return completion

    def _pause(self, attempt: int) -> float:
        """Returns seconds that double per attempt, with jitter so that hundreds of calls do not return at once."""
        longest = min(self._back_off_s * 2.0 ** (attempt - 1), MAX_BACK_OFF_S)
        return random.uniform(0.5, 1.0) * longest  # noqa: S311 - no secret
