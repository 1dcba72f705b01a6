"""Estimates the tokens that a full LLM run costs, without a call to the LLM.

It fills the prompts of a sample of real items and users and counts their tokens. An answer counts as a fixed share of
its word limit. A token counts as four characters unless the caller passes a tokenizer's counter.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from offline.stages.reason.corpus import Corpus
from offline.stages.reason.llm.chains import ITEM_PROMPTS, USER_PROMPTS
from offline.stages.reason.llm.prompting import item_data, load_prompt, taken_data
from offline.stages.reason.schemas import Step

TokenCounter = Callable[[str], int]

SAMPLE = 200
CHARACTERS_PER_TOKEN = 4.0
CHARACTERS_PER_WORD = 6.2
"""Characters of an English word with its space; converts an answer's number of words to characters."""

ANSWER_SHARE = 0.6
"""The estimate assumes that an answer uses this share of its word limit."""

THINKING_TOKENS = 600
"""Per call of a reasoning model. Use 0 for other models and for servers that constrain the first token already."""


class StepCost(NamedTuple):
    """Mean tokens of one call of a step."""

    tokens_in: float
    tokens_out: float


def count_by_characters(text: str) -> int:
    """Returns the estimated number of tokens of a text, from its length."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def estimate_steps(
    corpus: Corpus, *, seed: int = 0, thinking_tokens: int = THINKING_TOKENS, count: TokenCounter = count_by_characters
) -> dict[str, StepCost]:
    """Returns the mean tokens per call of every step, by prompt name."""
    rng = np.random.default_rng(seed)
    described = [row for row, item in enumerate(corpus.items) if item.title or item.categories]
    with_history = [row for row, history in enumerate(corpus.histories) if len(history)]
    costs: dict[str, StepCost] = {}
    items = [{"item": item_data(corpus.items[row], currency=corpus.currency)} for row in _sample(rng, described)]
    interest = _stand_in(25)
    users = [
        {"items": [taken_data(corpus.items[item], interest) for item in corpus.recent(row)]}
        for row in _sample(rng, with_history)
    ]
    for prompts, subjects in ((ITEM_PROMPTS, items), (USER_PROMPTS, users)):
        earlier_answers: dict[str, str] = {}
        for name, schema in prompts:
            costs[name] = _cost(name, schema, subjects, earlier_answers, thinking_tokens, count)
            earlier_answers |= {field: _stand_in(limit) for field, limit in schema.WORD_LIMITS.items()}
    return costs


def chain_tokens(costs: dict[str, StepCost], prompts: Sequence[tuple[str, type[Step]]]) -> float:
    """Returns the tokens of one chain, prompts and answers together."""
    return sum(costs[name].tokens_in + costs[name].tokens_out for name, _ in prompts)


def cost_table(costs: dict[str, StepCost], *, num_items: int, num_users: int) -> Table:
    """Returns a table of the calls and tokens for a shop of this size, step by step."""
    table = Table("step", "calls", "tokens in", "tokens out", title=f"{num_items:,} items, {num_users:,} users")
    totals = np.zeros(3)
    for prompts, number in ((ITEM_PROMPTS, num_items), (USER_PROMPTS, num_users)):
        for name, _ in prompts:
            row = np.array([number, number * costs[name].tokens_in, number * costs[name].tokens_out])
            totals += row
            table.add_row(name, f"{row[0]:,.0f}", f"{row[1] / 1e6:,.1f} M", f"{row[2] / 1e6:,.1f} M")
    table.add_section()
    table.add_row("all", f"{totals[0]:,.0f}", f"{totals[1] / 1e6:,.1f} M", f"{totals[2] / 1e6:,.1f} M")
    return table


def _cost(
    name: str,
    schema: type[Step],
    subjects: list[dict[str, Any]],
    earlier_answers: dict[str, str],
    thinking: int,
    count: TokenCounter,
) -> StepCost:
    prompt = load_prompt(name)
    tokens_in = [
        sum(count(message.content) for message in prompt.fill(subject | earlier_answers)) for subject in subjects
    ]
    answer = " ".join(_stand_in(limit) for limit in schema.WORD_LIMITS.values())
    return StepCost(float(np.mean(tokens_in)) if tokens_in else 0.0, float(count(answer) + thinking))


def _stand_in(limit: int) -> str:
    return "x" * round(limit * ANSWER_SHARE * CHARACTERS_PER_WORD)


def _sample(rng: np.random.Generator, rows: list[int]) -> list[int]:
    return sorted(rng.choice(rows, size=min(SAMPLE, len(rows)), replace=False).tolist()) if rows else []
