"""Do ids give held-out items away? Rules without model or training, against two levels of chance.

Data sets whose items were numbered by first appearance, held-out interactions included, are predicted by "largest id
so far, plus one". But ids may say what an item *is* (a category in the id, neighbouring numbers for one product line)
or roughly *when* it came, and that is no leak. So a rule counts as a leak only where it beats

- its mirror (minus for plus): what an item is works in both directions, the order of events in one;
- itself on ids shuffled among `BLOCK` neighbours: what is known only roughly survives that, a running number does not;

and a uniform guess. Items stand in some order of their ids here; "plus one" is the next item in it. Held-out items that
tie with the event before them are asked about by themselves: a file that lists a day's events by id makes every rule on
ids right about them, which is one more reason to shuffle ties and none to distrust the ids.
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
"""A small catalogue is asked for fewer than `K` items, or a uniform guess would be right too often to tell."""

BLOCK = 100
NUM_SHUFFLES = 20
LEAST_GAIN = 0.02
"""Share of held-out items above chance from which on a rule that beats it is a leak; below it is a warning.

Amazon Beauty numbered by first appearance gives 5.4% away; its own ids, which grow with time, 1.0% (untied, within 10).
"""

SAMPLES = 200


class Rule(NamedTuple):
    """Anchor item of the history, and the direction in which the answer's items stand from it."""

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
    """Held-out items and the histories before them, flat, so that a rule is a few passes over arrays."""

    targets: IntArray  # (R,)
    owner: IntArray  # (E,) row of the trial that each history entry belongs to, ascending
    entries: IntArray  # (E,) item rows, a history's items once each
    last: IntArray  # (R,)
    seen: NDArray[np.bool_]  # (R,) the target stands in the history: no rule may answer it

    @property
    def starts(self) -> IntArray:
        return np.searchsorted(self.owner, np.arange(len(self.targets)))


def gather_trials(parts: Sequence[EvaluationSplit]) -> Trials:
    """One trial per user of every part with a history."""
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


def ranks_by_rule(rule: Rule, place: IntArray, trials: Trials) -> IntArray:
    """Where each target stands in the rule's answer, the history's own items left out; (R,), −1 behind the anchor.

    Args:
        rule: the rule.
        place: (N,) place of each item in the order of ids.
        trials: R of them.
    """
    along = place * rule.step  # a step of −1 turns the order round, and smallest into largest
    furthest = np.maximum.reduceat(along[trials.entries], trials.starts)
    anchors = along[trials.last] if rule.anchor == "last" else furthest
    goal = along[trials.targets]
    passed = along[trials.entries]
    between = (passed > anchors[trials.owner]) & (passed < goal[trials.owner])
    ranks = goal - anchors - 1 - np.bincount(trials.owner[between], minlength=len(goal))
    return np.where((goal > anchors) & ~trials.seen, ranks, -1)


class RuleAnswer(NamedTuple):
    """The rule that beats chance by most on some trials."""

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
            f"{self.rule.words} has {self.hits[self.rule] / self.num_trials:.2%} of {self.num_trials} within {self.k}, "
            f"NDCG@{self.k} {self.ndcg.mean:.4f} ({self.ndcg.low:.4f} – {self.ndcg.high:.4f}); "
            f"chance {self.chance:.2%}, at most {self.bound / self.num_trials:.2%}"
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
    """Every rule over one order of the items; the one that beats chance by most.

    Args:
        order: (N,) item rows in that order.
        trials: what is to be predicted, at least one.
        seed: of shuffles and bootstraps.
    """
    num_items, num_trials = len(order), len(trials.targets)
    k = int(np.clip(num_items // ITEMS_PER_ANSWER, 1, K))
    place = np.argsort(order)
    ranks = {rule: ranks_by_rule(rule, place, trials) for rule in RULES}
    hits = {rule: int(hit_rate(own, k).sum()) for rule, own in ranks.items()}
    rng = np.random.default_rng(seed)
    shuffled = [_shuffled(place, rng) for _ in range(NUM_SHUFFLES)]
    answers = []
    for rule in RULES:
        roughly = float(np.mean([hit_rate(ranks_by_rule(rule, other, trials), k).mean() for other in shuffled]))
        chance = max(k / num_items, roughly, (hits[rule.mirror] + 1) / (num_trials + 1))
        measured = bootstrap_mean(ndcg(ranks[rule], k), samples=SAMPLES, seed=seed)
        answers.append(RuleAnswer(rule, k, num_trials, hits, chance, most_hits(num_trials, chance), measured))
    return max(answers, key=lambda answer: answer.excess)


def audit_order(name: str, order: IntArray, untied: Trials, tied: Trials, *, worst: FindingVerdict) -> Finding:
    """The finding over one order of the items.

    Args:
        name: of the order.
        order: (N,) item rows in that order.
        untied: held-out items that came later than what was before them.
        tied: those that came at the same time.
        worst: the verdict on an order that gives untied items away.
    """
    answers = {
        group: best_rule(order, trials) for group, trials in (("untied", untied), ("tied", tied)) if len(trials.targets)
    }
    plain, beside = answers.get("untied"), answers.get("tied")
    verdict: FindingVerdict = "ok"
    if plain is not None and plain.beats_chance:
        verdict = worst if plain.excess >= LEAST_GAIN else "warning"
    by_ties = beside is not None and beside.beats_chance and beside.excess >= LEAST_GAIN
    if by_ties and verdict == "ok":
        verdict = "warning"
    texts = [] if plain is None else [plain.words]
    if beside is not None and by_ties:
        texts.append(f"inside ties, which stand by id, {beside.words}")
    return Finding(
        f"ids: {name}",
        verdict,
        ". ".join(texts) or "every held-out item ties with the event before it",
        {group: answer.figures() for group, answer in answers.items()},
    )


def _shuffled(place: IntArray, rng: np.random.Generator) -> IntArray:
    """Places exchanged at random inside blocks of `BLOCK` neighbours, which start anywhere."""
    block = (place + rng.integers(BLOCK)) // BLOCK
    shuffled = np.empty_like(place)
    shuffled[np.lexsort((rng.random(len(place)), block))] = np.arange(len(place))
    return shuffled


def audit_ids(shop: AuditedShop, file_order: Sequence[str]) -> Iterator[Finding]:
    """Ids by number and by spelling, the catalogue file's rows, and ingest's own row numbers.

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
        yield Finding("ids: number at the end", "note", "the ids do not end in numbers of their own", {})
    else:
        yield audit_order("number at the end", numbers, untied, tied, worst="leak")
    spelling = np.array(sorted(range(shop.num_items), key=shop.item_ids.__getitem__), dtype=np.int64)
    yield audit_order("spelling", spelling, untied, tied, worst="leak")
    rows = {item: row for row, item in enumerate(shop.item_ids)}
    listed = np.array([rows[item] for item in file_order if item in rows], dtype=np.int64)
    # Ingest numbers items by their content: the file's order reaches nothing here, but it may elsewhere.
    yield audit_order("rows of the catalogue file", listed, untied, tied, worst="warning")
    yield audit_order("row numbers of a release", np.arange(shop.num_items), untied, tied, worst="leak")


def numeric_order(item_ids: Sequence[str]) -> IntArray | None:
    """Item rows by the number that ends their ids; None where that is no order of its own."""
    digits = [len(item) - len(item.rstrip("0123456789")) for item in item_ids]
    numbers = [int(item[-count:]) if count else -1 for item, count in zip(item_ids, digits, strict=True)]
    if min(digits, default=0) == 0 or len(set(numbers)) < 0.9 * len(numbers):
        return None
    return np.array(sorted(range(len(numbers)), key=lambda row: (numbers[row], item_ids[row])), dtype=np.int64)
