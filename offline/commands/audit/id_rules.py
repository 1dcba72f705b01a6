"""Checks whether item ids predict held-out items, with rules that need no model and no training.

In a data set that numbers items by first appearance, held-out interactions included, the rule "largest id so far, plus
one" predicts the next item. But ids may also encode what an item *is* (a category in the id, neighbouring numbers for
one product line) or roughly *when* it came, and that is no leak. So a rule counts as a leak only if it beats a uniform
guess and also

- its mirror (minus for plus): a rule about the kind of item works in both directions, the order of events in one;
- itself on ids shuffled among `BLOCK` neighbours: rough knowledge survives the shuffle, a running number does not.

Each check takes one order of the item ids; "plus one" is the next item in that order. Held-out items with the timestamp
of the event before them form a separate group. A file that lists a day's events by id makes every rule right about
them. This is a reason to shuffle ties, and not a reason to distrust the ids.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isrf.method.interest import IntArray
from isrf.method.metrics import Interval, bootstrap_mean, hit_rate, ndcg
from offline.commands.audit.chance import most_hits
from offline.commands.audit.findings import Finding, FindingVerdict
from offline.commands.audit.shop import AuditedShop
from offline.stages.evaluate.split import EvaluationSplit

K = 10
ITEMS_PER_ANSWER = 50
"""A catalogue with fewer than `K` times this many items gets shorter answers: else a uniform guess hits too often."""

BLOCK = 100
NUM_SHUFFLES = 20
LEAST_GAIN = 0.02
"""From this share of held-out items above chance on, a rule is a leak; below, it is a warning.

Amazon Beauty numbered by first appearance reaches 5.4%; its original ids, which grow with time, reach 1.0% (untied,
within 10).
"""

SAMPLES = 200


class Rule(NamedTuple):
    """A rule that predicts items by id: an anchor item of the history, and a direction from it."""

    anchor: str  # "largest", "smallest" or "last"
    step: int  # +1 or −1

    @property
    def words(self) -> str:
        return f"{self.anchor} id {'plus' if self.step > 0 else 'minus'} one"

    @property
    def mirror(self) -> "Rule":
        mirrored = {"largest": "smallest", "smallest": "largest", "last": "last"}
        return Rule(mirrored[self.anchor], -self.step)


RULES = (Rule("largest", 1), Rule("smallest", -1), Rule("last", 1), Rule("last", -1))


class Trials(NamedTuple):
    """Held-out items and their histories as flat arrays, so that a rule takes a few passes over arrays."""

    targets: IntArray  # (R,)
    owner: IntArray  # (E,) row of the trial that each history entry belongs to, ascending
    entries: IntArray  # (E,) item rows, each item of a history once
    last: IntArray  # (R,)
    seen: NDArray[np.bool_]  # (R,) the history holds the target: no rule may answer it

    @property
    def starts(self) -> IntArray:
        return np.searchsorted(self.owner, np.arange(len(self.targets)))


def gather_trials(parts: Sequence[EvaluationSplit]) -> Trials:
    """Returns one trial per user with a history, of every part."""
    pairs = [
        (history, target)
        for split in parts
        for history, target in zip(split.histories, split.targets.tolist(), strict=True)
        if history
    ]
    distinct = [sorted(set(history)) for history, _ in pairs]
    return Trials(
        targets=np.array([target for _, target in pairs], dtype=np.int64),
        owner=np.repeat(np.arange(len(pairs)), [len(items) for items in distinct]),
        entries=np.concatenate([np.zeros(0, dtype=np.int64), *map(np.array, distinct)]).astype(np.int64),
        last=np.array([history[-1] for history, _ in pairs], dtype=np.int64),
        seen=np.array([target in history for history, target in pairs], dtype=np.bool_),
    )


def ranks_by_rule(rule: Rule, position: IntArray, trials: Trials) -> IntArray:
    """Returns each target's rank in the rule's answer without the history's items; (R,) int64, −1 if not in it.

    Args:
        rule: the rule.
        position: (N,) position of each item in the order of ids.
        trials: the R trials.
    """
    signed = position * rule.step  # a step of −1 reverses the order, so the smallest id is the largest
    largest = np.maximum.reduceat(signed[trials.entries], trials.starts)
    anchor_positions = signed[trials.last] if rule.anchor == "last" else largest
    target_positions = signed[trials.targets]
    entry_positions = signed[trials.entries]
    between = (entry_positions > anchor_positions[trials.owner]) & (entry_positions < target_positions[trials.owner])
    ranks = (
        target_positions - anchor_positions - 1 - np.bincount(trials.owner[between], minlength=len(target_positions))
    )
    return np.where((target_positions > anchor_positions) & ~trials.seen, ranks, -1)


class RuleAnswer(NamedTuple):
    """The rule that beats chance by the most on a group of trials."""

    rule: Rule
    k: int
    num_trials: int
    hits: dict[Rule, int]
    chance: float
    bound: int
    ndcg: Interval

    @property
    def excess(self) -> float:
        return self.hits[self.rule] / self.num_trials - self.chance

    @property
    def beats_chance(self) -> bool:
        return self.hits[self.rule] > self.bound

    @property
    def words(self) -> str:
        return (
            f"{self.rule.words} finds {self.hits[self.rule] / self.num_trials:.2%} of {self.num_trials} "
            f"within {self.k}, "
            f"NDCG@{self.k} {self.ndcg.mean:.4f} ({self.ndcg.low:.4f} – {self.ndcg.high:.4f}); "
            f"chance finds {self.chance:.2%}, at most {self.bound / self.num_trials:.2%}"
        )

    def figures(self) -> dict[str, Any]:
        return {
            "rule": self.rule.words,
            "k": self.k,
            "trials": self.num_trials,
            "hit_rate": round(self.hits[self.rule] / self.num_trials, 5),
            f"NDCG@{self.k}": round(self.ndcg.mean, 5),
            f"NDCG@{self.k}_95": [round(self.ndcg.low, 5), round(self.ndcg.high, 5)],
            "chance": round(self.chance, 5),
            "bound": round(self.bound / self.num_trials, 5),
            "all_rules": {rule.words: round(count / self.num_trials, 5) for rule, count in self.hits.items()},
        }


def best_rule(order: IntArray, trials: Trials, *, seed: int = 0) -> RuleAnswer:
    """Tries every rule on one order of the items; returns the rule that beats chance by the most.

    Args:
        order: (N,) item rows in that order.
        trials: the trials to predict, at least one.
        seed: seed of the shuffles and bootstraps.
    """
    num_items, num_trials = len(order), len(trials.targets)
    k = int(np.clip(num_items // ITEMS_PER_ANSWER, 1, K))
    position = np.argsort(order)
    ranks = {rule: ranks_by_rule(rule, position, trials) for rule in RULES}
    hits = {rule: int(hit_rate(rule_ranks, k).sum()) for rule, rule_ranks in ranks.items()}
    rng = np.random.default_rng(seed)
    shuffled = [_shuffled(position, rng) for _ in range(NUM_SHUFFLES)]
    answers = []
    for rule in RULES:
        shuffled_chance = float(np.mean([hit_rate(ranks_by_rule(rule, other, trials), k).mean() for other in shuffled]))
        chance = max(k / num_items, shuffled_chance, (hits[rule.mirror] + 1) / (num_trials + 1))
        measured = bootstrap_mean(ndcg(ranks[rule], k), samples=SAMPLES, seed=seed)
        answers.append(RuleAnswer(rule, k, num_trials, hits, chance, most_hits(num_trials, chance), measured))
    return max(answers, key=lambda answer: answer.excess)


def audit_order(name: str, order: IntArray, untied: Trials, tied: Trials, *, worst: FindingVerdict) -> Finding:
    """Returns the finding about one order of the items.

    Args:
        name: name of the order.
        order: (N,) item rows in that order.
        untied: held-out items later than the event before them.
        tied: held-out items with the same timestamp as the event before them.
        worst: the verdict if the order predicts untied items.
    """
    answers = {
        group: best_rule(order, trials) for group, trials in (("untied", untied), ("tied", tied)) if len(trials.targets)
    }
    untied_answer, tied_answer = answers.get("untied"), answers.get("tied")
    verdict: FindingVerdict = "ok"
    if untied_answer is not None and untied_answer.beats_chance:
        verdict = worst if untied_answer.excess >= LEAST_GAIN else "warning"
    by_ties = tied_answer is not None and tied_answer.beats_chance and tied_answer.excess >= LEAST_GAIN
    if by_ties and verdict == "ok":
        verdict = "warning"
    texts = [] if untied_answer is None else [untied_answer.words]
    if tied_answer is not None and by_ties:
        texts.append(f"inside ties, which are in the order of ids, {tied_answer.words}")
    return Finding(
        f"ids: {name}",
        verdict,
        ". ".join(texts) or "every held-out item has the timestamp of the event before it",
        {group: answer.figures() for group, answer in answers.items()},
    )


def _shuffled(position: IntArray, rng: np.random.Generator) -> IntArray:
    """Returns positions exchanged at random inside blocks of `BLOCK` neighbours; the first block has a random start."""
    block = (position + rng.integers(BLOCK)) // BLOCK
    shuffled = np.empty_like(position)
    shuffled[np.lexsort((rng.random(len(position)), block))] = np.arange(len(position))
    return shuffled


def audit_ids(shop: AuditedShop, file_order: Sequence[str]) -> Iterator[Finding]:
    """Yields a finding per order: ids by number, ids by spelling, the catalogue file's rows, ingest's row numbers.

    Args:
        shop: the shop.
        file_order: item ids as the catalogue file lists them.
    """
    untied, tied = (
        gather_trials([split.rows(np.flatnonzero(shop.tied[name] == ties)) for name, split in shop.splits().items()])
        for ties in (False, True)
    )
    numbers = numeric_order(shop.item_ids)
    if numbers is None:
        yield Finding("ids: number at the end", "note", "the ids do not end in distinct numbers", {})
    else:
        yield audit_order("number at the end", numbers, untied, tied, worst="leak")
    spelling = np.array(sorted(range(shop.num_items), key=shop.item_ids.__getitem__), dtype=np.int64)
    yield audit_order("spelling", spelling, untied, tied, worst="leak")
    rows = {item: row for row, item in enumerate(shop.item_ids)}
    file_rows = np.array([rows[item] for item in file_order if item in rows], dtype=np.int64)
    # Ingest numbers items by their content, so the file's order has no effect here; it may have one elsewhere.
    yield audit_order("rows of the catalogue file", file_rows, untied, tied, worst="warning")
    yield audit_order("row numbers of a release", np.arange(shop.num_items), untied, tied, worst="leak")


def numeric_order(item_ids: Sequence[str]) -> IntArray | None:
    """Returns the item rows ordered by the number at the end of their ids; None without mostly distinct numbers."""
    digits = [len(item) - len(item.rstrip("0123456789")) for item in item_ids]
    numbers = [int(item[-count:]) if count else -1 for item, count in zip(item_ids, digits, strict=True)]
    if min(digits, default=0) == 0 or len(set(numbers)) < 0.9 * len(numbers):
        return None
    return np.array(sorted(range(len(numbers)), key=lambda row: (numbers[row], item_ids[row])), dtype=np.int64)
