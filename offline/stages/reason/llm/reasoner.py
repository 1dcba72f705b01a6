"""Runs the LLM reasoner: plans the budget, asks about items and then users, fills the rest and writes the report."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.progress import Progress

from isrf.contract.errors import StageError
from offline.config import ReasonConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.stages.reason.attributes.reasoner import AttributeReasoning, gather_facts
from offline.stages.reason.corpus import Corpus
from offline.stages.reason.llm.calls import event_loop
from offline.stages.reason.llm.calls.client import LlmClient, refuse_password
from offline.stages.reason.llm.calls.ledger import Ledger
from offline.stages.reason.llm.calls.retries import CircuitOpenError, RetryingCaller
from offline.stages.reason.llm.calls.spread import SpreadClient
from offline.stages.reason.llm.chains import ITEM_PROMPTS, USER_PROMPTS, reason_item, reason_user
from offline.stages.reason.llm.cost import chain_tokens, estimate_steps
from offline.stages.reason.llm.distill import Filled, fill_items, fill_users, item_vectors, user_vectors
from offline.stages.reason.llm.plan import BudgetPlan, plan_budget, plan_everything
from offline.stages.reason.llm.prompting import item_data, taken_data
from offline.stages.reason.llm.step_runner import StepFailedError, StepRunner
from offline.stages.reason.llm.tally import Tally
from offline.stages.reason.schemas import ItemReasoning, Step, UserReasoning

AnswerT = TypeVar("AnswerT", bound=Step)


class LlmReasoning(NamedTuple):
    """The answers about all items and users, and the report of the run."""

    items: Filled[ItemReasoning]
    users: Filled[UserReasoning]
    report: dict[str, Any]


def reason_by_llm(
    corpus: Corpus,
    attribute: AttributeReasoning,
    *,
    config: ReasonConfig,
    ledger_path: Path,
    progress: Progress,
    engine: StageEngine = LOCAL,
) -> LlmReasoning:
    """Reasons over the corpus within the budget; with an engine of many nodes, calls go out from all of them.

    Ledger, budget and retries stay here, whoever makes a call.

    Raises:
        StageError: `reason.llm_unavailable` if the server fails too often, `reason.unanswered` if it leaves calls
            unanswered. The ledger keeps all answers received.
    """
    refuse_password("reason.base_url", config.base_url)
    client: LlmClient = SpreadClient(engine, config)
    plan = make_plan(corpus, config)
    tally = Tally()
    run = _Run(corpus, attribute, config=config, plan=plan, tally=tally, progress=progress)
    try:
        items, users, failures = event_loop.run(run.reason(client, ledger_path))
    finally:
        progress.console.print(tally.as_table())
    report = {
        "model": config.model,
        "steps": tally.as_json(),
        "server_failures": failures,
        "budget": {"calls": config.budget_calls, "tokens": config.budget_tokens},
        "spent": {"calls": tally.calls, "tokens": tally.tokens},
        "planned": {"items": len(plan.items), "users": len(plan.users), "covered_gain": round(plan.covered_gain, 4)},
    }
    return LlmReasoning(items, users, report)


def make_plan(corpus: Corpus, config: ReasonConfig) -> BudgetPlan:
    """Returns which items and users this configuration asks about; of two budgets the tighter one applies."""
    plans = []
    if config.budget_calls is not None:
        calls = float(config.budget_calls)
        plans.append((calls, float(len(ITEM_PROMPTS)), float(len(USER_PROMPTS))))
    if config.budget_tokens is not None:
        costs = estimate_steps(corpus)
        plans.append(
            (float(config.budget_tokens), chain_tokens(costs, ITEM_PROMPTS), chain_tokens(costs, USER_PROMPTS))
        )
    if not plans:
        return plan_everything(corpus)
    facts = gather_facts(corpus)
    candidates = [
        plan_budget(corpus, facts, budget=budget, item_cost=item_cost, user_cost=user_cost)
        for budget, item_cost, user_cost in plans
    ]
    return min(candidates, key=lambda plan: plan.covered_gain)


class _Run:
    """One run of the LLM reasoner over one corpus."""

    def __init__(
        self,
        corpus: Corpus,
        attribute: AttributeReasoning,
        *,
        config: ReasonConfig,
        plan: BudgetPlan,
        tally: Tally,
        progress: Progress,
    ) -> None:
        self._corpus = corpus
        self._attribute = attribute
        self._config = config
        self._plan = plan
        self._tally = tally
        self._progress = progress

    async def reason(
        self, client: LlmClient, ledger_path: Path
    ) -> tuple[Filled[ItemReasoning], Filled[UserReasoning], dict[str, int]]:
        config, corpus = self._config, self._corpus
        caller = RetryingCaller(
            client,
            concurrency=config.concurrency,
            max_attempts=config.max_attempts,
            max_server_failures=config.max_server_failures,
            back_off_s=config.back_off_s,
        )
        ledger = Ledger(ledger_path, model=config.model)
        try:
            await ledger.start()
        except BaseException:
            await client.close()
            raise
        try:
            runner = StepRunner(
                model=config.model,
                caller=caller,
                ledger=ledger,
                tally=self._tally,
                budget_calls=config.budget_calls,
            )
            vectors = item_vectors(corpus, seed=0)
            item_answers = await self._ask_all(
                "items", self._plan.items, lambda row: reason_item(runner, self._item_data(row))
            )
            items = fill_items(corpus, item_answers, self._attribute.items, vectors)
            user_answers = await self._ask_all(
                "users", self._plan.users, lambda row: reason_user(runner, self._taken_data(row, items))
            )
            users = fill_users(user_answers, self._attribute.users, user_vectors(corpus, vectors))
        finally:
            await ledger.close()
            await client.close()
        return items, users, dict(sorted(caller.failures.items()))

    async def _ask_all(
        self, name: str, rows: Sequence[int], chain: Callable[[int], Awaitable[AnswerT]]
    ) -> dict[int, AnswerT]:
        """Returns the answers by row, without failed chains. Runs as many chains at once as the concurrency allows."""
        task = self._progress.add_task(f"reason: {name}", total=len(rows))
        answers: dict[int, AnswerT] = {}

        async def work(waiting: Iterator[int]) -> None:
            for row in waiting:
                if self._is_spent():
                    return
                try:
                    answers[row] = await chain(row)
                except StepFailedError:
                    pass  # counted in the tally, filled by distillation
                finally:
                    self._progress.advance(task)

        waiting = iter(rows)
        workers = (work(waiting) for _ in range(min(self._config.concurrency, len(rows))))
        outcomes = await asyncio.gather(*workers, return_exceptions=True)  # calls in flight are paid: wait for them
        for error in outcomes:
            if isinstance(error, CircuitOpenError):
                raise StageError(
                    "reason.llm_unavailable",
                    f"{self._config.base_url} does not answer as {self._config.model}: {error}.",
                    fix="Repair the server and run the same command again: the ledger keeps every answer received.",
                ) from error
            if error is not None:
                raise error
        self._check_answered(name)
        return answers

    def _check_answered(self, name: str) -> None:
        """Stops the run if calls stayed unanswered: the users' prompts need all the items' features."""
        if self._tally.unanswered:
            raise StageError(
                "reason.unanswered",
                f"{self._config.base_url} did not answer for {self._tally.unanswered} of the {name}.",
                fix="Run the same command again: the ledger keeps every answer, and only missing ones are asked for.",
            )

    def _is_spent(self) -> bool:
        calls, tokens = self._config.budget_calls, self._config.budget_tokens
        return (calls is not None and self._tally.calls >= calls) or (
            tokens is not None and self._tally.tokens >= tokens
        )

    def _item_data(self, row: int) -> dict[str, Any]:
        return item_data(self._corpus.items[row], currency=self._corpus.currency)

    def _taken_data(self, user: int, items: Filled[ItemReasoning]) -> list[dict[str, Any]]:
        return [
            taken_data(self._corpus.items[row], answer.feature if answer else None)
            for row in self._corpus.recent(user)
            for answer in (items.answers[row],)
        ]
