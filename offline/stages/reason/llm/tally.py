"""Counts calls, tokens and failures per step, for the table on the terminal and for `report.json`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table


@dataclass
class StepTally:
    """Counts of one step: the server answered `paid` calls in this run, the ledger answered `stored` ones."""

    done: int = 0
    paid: int = 0
    stored: int = 0
    tokens_stored: int = 0  # prompts and answers that the ledger holds
    tokens_in: int = 0
    tokens_out: int = 0
    asked_again: int = 0
    truncated: int = 0
    unanswered: int = 0  # failed because the server did not answer
    failed: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "calls_paid": self.paid,
            "calls_from_ledger": self.stored,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "asked_again": self.asked_again,
            "truncated": self.truncated,
            "failed": dict(sorted(self.failed.items())),
            "latency_s": {
                str(q): round(float(np.quantile(self.latencies_s, q / 100)), 3) for q in (50, 95) if self.latencies_s
            },
        }


@dataclass
class Tally:
    """Counts of all steps of a run."""

    steps: dict[str, StepTally] = field(default_factory=dict)

    def of(self, step: str) -> StepTally:
        return self.steps.setdefault(step, StepTally())

    @property
    def calls(self) -> int:
        """Calls paid in this run or an earlier one. The budget counts both, so that a second run plans as the first."""
        return sum(step.paid + step.stored for step in self.steps.values())

    @property
    def unanswered(self) -> int:
        """Chains that ended because the server did not answer."""
        return sum(step.unanswered for step in self.steps.values())

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers, paid in this run or an earlier one."""
        return sum(step.tokens_in + step.tokens_out + step.tokens_stored for step in self.steps.values())

    def as_json(self) -> dict[str, Any]:
        return {name: step.as_json() for name, step in self.steps.items()}

    def as_table(self) -> Table:
        columns = ("step", "done", "paid", "from ledger", "tokens in", "out", "again", "cut", "failed", "s (p50, p95)")
        table = Table(*columns, title="LLM reasoning")
        for name, step in self.steps.items():
            numbers = (step.done, step.paid, step.stored, step.tokens_in, step.tokens_out, step.asked_again)
            failed = ", ".join(f"{count} {kind}" for kind, count in sorted(step.failed.items())) or "0"
            latency = ", ".join(f"{value:.2f}" for value in step.as_json()["latency_s"].values()) or "–"
            table.add_row(name, *(f"{number:,}" for number in numbers), str(step.truncated), failed, latency)
        return table
