"""One split measured under every protocol: full ranking without and with seen items, and direct recommendation."""

from dataclasses import dataclass, replace
from typing import Any

from rich.progress import Progress

from isrf.method.recommend.recommender import Graph, Recommender
from offline.config import RunConfig
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL
from offline.stages.evaluate.figures import describe_coverage, describe_lists, describe_slices
from offline.stages.evaluate.lists import FUSED, LOG_LINEAR, RankedLists, Scorers, ranked_lists
from offline.stages.evaluate.questions import Question, direct, full_ranking
from offline.stages.evaluate.split import EvaluationSplit, sample_rows


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Asks one recommender and describes what it answers; `config` is that of the release."""

    recommender: Recommender
    scorers: Scorers
    config: RunConfig
    progress: Progress
    engine: StageEngine = LOCAL

    def searching_with(self, graph: Graph) -> "Measure":
        """The same, asking another form of the search graph."""
        return replace(self, recommender=self.recommender.searching_with(graph))

    def lists(self, split: EvaluationSplit, title: str, *, include_seen: bool = False) -> RankedLists:
        """Every full-ranking list of a split's users."""
        return self.answers(split, self._ranking(split, include_seen=include_seen), title)

    def answers(self, split: EvaluationSplit, question: Question, title: str) -> RankedLists:
        """Every list of a split's users, from one run of the search graph each."""
        return ranked_lists(
            self.recommender,
            split,
            question,
            self.scorers,
            progress=self.progress,
            title=f"evaluate: {title}",
            engine=self.engine,
        )

    def protocol(self, split: EvaluationSplit, *, include_seen: bool = False) -> str:
        """The words that stand with the figures of `lists`."""
        return self._ranking(split, include_seen=include_seen).protocol

    def describe_ranking(self, lists: RankedLists, split: EvaluationSplit) -> dict[str, Any]:
        """Figures of full-ranking lists: metrics, differences, coverage, slices."""
        tables = self.recommender.tables
        popularity, transitions = tables.popularity, tables.item_lists["transition"]
        figures = self._describe(lists, split)
        for name, own in (*((name, figures[name]) for name in (FUSED, LOG_LINEAR)), *figures["channels"].items()):
            own |= describe_coverage(lists[name], popularity)
        slices = describe_slices(lists, split, popularity=popularity, transitions=transitions, **self._bootstrap)
        return figures | {"slices": slices}

    def beside(self, split: EvaluationSplit, title: str, *, num_users: int) -> dict[str, Any]:
        """The other protocols, each on a sample of the split's users: with seen items, and direct recommendation."""
        part = split.rows(sample_rows(split, num_users, self.config.seed))
        config = self.config
        questions = {
            "seen_included": self._ranking(part, include_seen=True),
            "direct": direct(part, self._num_items, tie_seed=config.ingest.shuffle_ties, seed=config.seed),
        }
        figures: dict[str, Any] = {}
        for name, question in questions.items():
            lists = self.answers(part, question, f"{title}, {name}")
            figures[name] = {"protocol": question.protocol, **self._describe(lists, part)}
        return figures

    def _ranking(self, split: EvaluationSplit, *, include_seen: bool) -> Question:
        tie_seed = self.config.ingest.shuffle_ties
        return full_ranking(split, self._num_items, tie_seed=tie_seed, include_seen=include_seen)

    def _describe(self, lists: RankedLists, split: EvaluationSplit) -> dict[str, Any]:
        return {"users": len(split.users), **describe_lists(lists, split.targets, **self._bootstrap)}

    @property
    def _bootstrap(self) -> dict[str, int]:
        return {"samples": self.config.evaluate.bootstrap_samples, "seed": self.config.seed}

    @property
    def _num_items(self) -> int:
        return len(self.recommender.tables.popularity)
