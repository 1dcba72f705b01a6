"""Runs vLLM in this process (`vllm.LLM`, extra `llm`), behind the same interface as a server.

`vllm.LLM` answers a list of conversations at once. Calls that arrive meanwhile form the next list, so that vLLM batches
them as it does behind a server. It knows nothing of the prompts' meaning.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from isrf.contract.errors import ConfigError
from offline.config import ReasonConfig
from offline.stages.reason.llm.calls.client import Completion, LlmCall, RejectedError
from offline.stages.reason.schemas import Step

GATHER_S = 0.02
"""The client waits this long for further calls before it starts a list."""


class Answered(NamedTuple):
    """The engine's answer to one conversation."""

    text: str
    tokens_in: int
    tokens_out: int


class VllmEngine(Protocol):
    """Answers a list of conversations in order; `load_engine` wraps `vllm.LLM` in it."""

    def answer(self, calls: Sequence[LlmCall]) -> list[Answered]: ...


class VllmClient:
    """Client of vLLM in this process; loads the model once, on the first call."""

    def __init__(self, config: ReasonConfig, engine: VllmEngine | None = None) -> None:
        self._config = config
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm")
        self._waiting: list[tuple[LlmCall, asyncio.Future[Completion]]] = []
        self._answering: asyncio.Task[None] | None = None

    async def complete(self, call: LlmCall) -> Completion:
        """Returns the answer; raises `RejectedError` if the engine fails on the list of conversations."""
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, future))
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer_all())
        return await future

    async def close(self) -> None:
        self._thread.shutdown()

    async def _answer_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            batch, self._waiting = self._waiting, []
            started = time.monotonic()
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._answer, [call for call, _ in batch]
                )
            except Exception as error:  # noqa: BLE001 - any error of the engine fails every call of the list
                for _, future in batch:
                    future.set_exception(
                        error if isinstance(error, ConfigError) else RejectedError(f"{type(error).__name__}: {error}")
                    )
                continue
            latency_s = time.monotonic() - started
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(Completion(answer.text, "", answer.tokens_in, answer.tokens_out, latency_s))

    def _answer(self, calls: list[LlmCall]) -> list[Answered]:
        if self._engine is None:
            self._engine = load_engine(self._config)
        return self._engine.answer(calls)


def load_engine(config: ReasonConfig) -> VllmEngine:
    """Loads the configured model into `vllm.LLM`; raises `ConfigError` (`config.no_vllm`) without vLLM."""
    try:
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import StructuredOutputsParams
    except ImportError as error:
        raise ConfigError(
            "config.no_vllm",
            f"reason.client is vllm, but vLLM cannot be imported: {error}.",
            fix="Install the extra `llm` in a separate environment, or start `vllm serve` and use client=openai.",
        ) from error

    class VllmEngine:
        def __init__(self) -> None:
            self._llm = LLM(model=config.model)

        def answer(self, calls: Sequence[LlmCall]) -> list[Answered]:
            conversations = [[message._asdict() for message in call.messages] for call in calls]
            outputs = self._llm.chat(conversations, [self._sampling(call.schema) for call in calls], use_tqdm=False)
            return [
                Answered(output.outputs[0].text, len(output.prompt_token_ids or ()), len(output.outputs[0].token_ids))
                for output in outputs
            ]

        @staticmethod
        def _sampling(schema: type[Step]) -> Any:
            return SamplingParams(
                temperature=config.temperature,
                max_tokens=config.max_answer_tokens,
                seed=0,
                structured_outputs=StructuredOutputsParams(json=schema.model_json_schema()),
            )

    return VllmEngine()
