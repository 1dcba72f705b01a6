"""Asks the LLM one step: fills the prompt, calls through the ledger, validates the answer, asks once more if needed."""

import hashlib
import json
from typing import Any, TypeVar, cast

from offline.stages.reason.llm.answers import parse_answer, strip_thoughts, truncate
from offline.stages.reason.llm.calls.client import Completion, LlmCall, RejectedError, UnavailableError
from offline.stages.reason.llm.calls.ledger import Ledger
from offline.stages.reason.llm.calls.retries import RetryingCaller
from offline.stages.reason.llm.judge import Sources, sources_of
from offline.stages.reason.llm.prompting import Message, Prompt, load_prompt
from offline.stages.reason.llm.tally import StepTally, Tally
from offline.stages.reason.schemas import Step

StepT = TypeVar("StepT", bound=Step)

AGAIN = "That answer cannot be used: {complaint}. Answer again with nothing but the JSON object, within the limits."


class StepFailedError(Exception):
    """The step has no usable answer; the message is the kind of failure that the report counts."""


class UnansweredError(StepFailedError):
    """The server did not answer; another run may get an answer."""


class StepRunner:
    """Asks the LLM for single steps; a call costs nothing if the ledger holds its answer."""

    def __init__(
        self, *, model: str, caller: RetryingCaller, ledger: Ledger, tally: Tally, budget_calls: int | None = None
    ) -> None:
        self._model = model
        self._caller = caller
        self._ledger = ledger
        self._tally = tally
        self._budget_calls = budget_calls
        self._under_way = 0

    async def ask(self, prompt_name: str, schema: type[StepT], values: dict[str, Any]) -> StepT:
        """Returns the step's answer, cut to the word limits if the model exceeds them twice.

        Raises:
            StepFailedError: there is no usable answer; the tally counts it.
            CircuitOpenError: the run has to end.
        """
        prompt = load_prompt(prompt_name)
        tally = self._tally.of(prompt_name)
        try:
            sources = sources_of(prompt.instructions, values)
            step = await self._ask(prompt, schema, prompt.fill(values), sources, tally)
        except StepFailedError as error:
            tally.failed[str(error)] += 1
            tally.unanswered += isinstance(error, UnansweredError)
            raise
        tally.done += 1
        return step

    async def _ask(
        self, prompt: Prompt, schema: type[StepT], messages: tuple[Message, ...], sources: Sources, tally: StepTally
    ) -> StepT:
        call = self._call(prompt, schema, messages)
        text = await self._complete(prompt, call, tally)
        first = parse_answer(text, schema, sources)
        if not first.complaint:
            return cast(StepT, first.step)
        tally.asked_again += 1
        correction = Message("user", AGAIN.format(complaint=first.complaint))
        rejected_answer = Message("assistant", strip_thoughts(text) or "…")
        second_call = self._call(prompt, schema, (*messages, rejected_answer, correction))
        try:
            second = parse_answer(await self._complete(prompt, second_call, tally), schema, sources)
        except UnansweredError:
            raise  # the next run asks the second time
        except StepFailedError:
            if first.step is None:
                raise
            second = first
        best = second.step or first.step
        if best is None:
            self._ledger.forget(call.key, second_call.key)  # another run with more tokens, or by chance, may succeed
            raise StepFailedError(second.failure)
        if second.step is None or second.complaint:
            tally.truncated += 1
        return cast(StepT, truncate(best))

    def _call(self, prompt: Prompt, schema: type[Step], messages: tuple[Message, ...]) -> LlmCall:
        return LlmCall(messages, schema, _key(self._model, prompt, messages))

    async def _complete(self, prompt: Prompt, call: LlmCall, tally: StepTally) -> str:

        async def ask() -> Completion:
            return await self._caller.call(call)

        if self._budget_calls is not None and self._tally.calls + self._under_way >= self._budget_calls:
            raise StepFailedError("beyond the budget")
        self._under_way += 1
        try:
            completion, paid = await self._ledger.obtain(call.key, prompt.name, ask)
        except UnavailableError as error:
            raise UnansweredError("no answer from the server") from error
        except RejectedError as error:
            raise StepFailedError("rejected by the server") from error
        finally:
            self._under_way -= 1
        if paid:
            tally.paid += 1
            tally.tokens_in += completion.tokens_in
            tally.tokens_out += completion.tokens_out
            tally.latencies_s.append(completion.latency_s)
        else:
            tally.stored += 1
            tally.tokens_stored += completion.tokens_in + completion.tokens_out
        if completion.refusal:
            raise StepFailedError("refused")
        return completion.text


def _key(model: str, prompt: Prompt, messages: tuple[Message, ...]) -> str:
    parts = [model, prompt.name, prompt.version, prompt.digest, [tuple(message) for message in messages]]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()
