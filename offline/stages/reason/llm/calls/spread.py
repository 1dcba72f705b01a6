"""Makes the calls of one run from the nodes of its engine: each call goes to one of several copies of a client.

The run's own process keeps ledger, budget, retries and the count of failures: it hands out one call at a time and gets
one answer. A node that is lost costs the answers that it was waiting for; they are asked for again.
"""

from functools import partial

from offline.config import ReasonConfig
from offline.engine.engine import StageEngine, WorkerLostError
from offline.stages.reason.llm.calls.client import Completion, LlmCall, LlmClient, OpenAIClient, UnavailableError
from offline.stages.reason.llm.calls.vllm_client import VllmClient


def _make(config: ReasonConfig) -> LlmClient:
    return VllmClient(config) if config.client == "vllm" else OpenAIClient(config)


class SpreadClient:
    """A client whose calls the copies of another client make."""

    def __init__(self, engine: StageEngine, config: ReasonConfig) -> None:
        """Raises what the client raises that the configuration names."""
        self._copies = engine.spread(
            partial(_make, config), on_gpu=config.client == "vllm", calls_at_once=config.concurrency
        )

    async def complete(self, call: LlmCall) -> Completion:
        """As `LlmClient.complete`; raises `UnavailableError` where the node was lost."""
        try:
            return await self._copies.complete(call)
        except WorkerLostError as error:
            raise UnavailableError(f"node lost: {error}") from error

    async def close(self) -> None:
        await self._copies.close()
