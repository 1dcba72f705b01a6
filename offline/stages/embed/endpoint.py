"""The encoder `openai`: an embeddings endpoint with the OpenAI protocol (`embed.base_url`, `embed.model`)."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import openai

from isrf.contract.errors import StageError
from isrf.method.interest import FloatArray
from offline.config import EmbedConfig
from offline.stages.reason.llm.calls.client import NO_KEY, refuse_password

MAX_RETRIES = 6
"""The `openai` package waits between retries, as long as Retry-After says."""


class EndpointEncoder:
    """Embeds texts with one request per batch; the key comes from the environment (`OPENAI_API_KEY`)."""

    def __init__(self, config: EmbedConfig, *, max_retries: int = MAX_RETRIES) -> None:
        refuse_password("embed.base_url", config.base_url)
        self._config, self._max_retries = config, max_retries
        self._client = openai.OpenAI(
            base_url=config.base_url, api_key=os.environ.get("OPENAI_API_KEY") or NO_KEY, max_retries=max_retries
        )
        self.name = f"openai:{config.model}"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """The texts' vectors, (B, W) float32; raises `StageError` (`embed.endpoint`) where the endpoint fails."""
        try:
            answer = self._client.embeddings.create(
                model=self._config.model, input=list(texts), encoding_format="float"
            )
        except openai.OpenAIError as error:
            raise self._failed(str(error)) from error
        rows = sorted(answer.data, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(texts))):
            raise self._failed(f"{len(rows)} vectors for {len(texts)} texts")
        return np.array([row.embedding for row in rows], dtype=np.float32)

    def __reduce__(self) -> tuple[Callable[..., "EndpointEncoder"], tuple[EmbedConfig]]:
        return partial(EndpointEncoder, max_retries=self._max_retries), (self._config,)

    def close(self) -> None:
        self._client.close()

    def _failed(self, reason: str) -> StageError:
        return StageError(
            "embed.endpoint",
            f"{self._config.base_url} gives no embeddings with the model {self._config.model}: {reason}.",
            fix="Check the endpoint and run the same command again; it reuses all vectors so far.",
        )
