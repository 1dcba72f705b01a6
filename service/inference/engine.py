"""Runs a release's recommender off the event loop, in as many threads as the process has CPUs.

ONNX Runtime and FAISS let go of the GIL; each call uses one thread and answers all that waited together
(`service.inference.batching`). It knows neither users nor HTTP: rows in, rows out.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

from isrf.method.recommend.request import Ranked, RankingRequest, UserInterests
from service.inference.batching import Batches, StageTimer
from service.inference.group_cache import rounded
from service.inference.queue_limit import QueueLimit
from service.release.opening import Release
from service.release.snapshot import Snapshot, base_snapshot
from service.telemetry.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")

BATCH_S = 0.065
"""How long a batch may take where its size is not given: who comes when it has just begun waits for all of it."""
WORTH_IT = 4
"""Above this, a larger batch answers hardly more in the same time (docs/lab-notebook.md)."""


class InferenceRequest(NamedTuple):
    """What one request asks of the model.

    Attributes:
        history: item rows, oldest first.
        own: the user's row in the snapshot, or −1.
        interests: what is known of them already, or None to read them.
        request: the list to make, or None for the interests alone.
    """

    snapshot: Snapshot
    history: Sequence[int]
    own: int
    interests: UserInterests | None
    request: RankingRequest | None


class InferenceResult(NamedTuple):
    interests: UserInterests
    ranked: Ranked | None  # None where no list was asked for


class Engine:
    """One per release."""

    def __init__(self, release: Release, *, limit: QueueLimit, metrics: Metrics) -> None:
        """`limit` is of this engine's queue, and of no other."""
        self.release = release
        self.snapshot = base_snapshot(release)
        """Who may be a neighbour now. A request takes it once: interests and ranking must be of one snapshot."""
        self._limit, self._metrics = limit, metrics
        self._threads = ThreadPoolExecutor(max_workers=limit.num_threads, thread_name_prefix="engine")
        self._batches = Batches(self._threads, limit, metrics)

    def check(self) -> None:
        """Raises `OverloadError` where a question would be refused now."""
        self._batches.check()

    def is_full(self, under_way: int) -> bool:
        """Whether a question would be refused of somebody who comes while so many are on their way to ask or asking."""
        return self._batches.is_full(under_way)

    async def read(self, history: Sequence[int], own: int, snapshot: Snapshot) -> UserInterests:
        """Interests of one history (item rows, oldest first), in the precision of the cache; `own` may be −1."""
        return (await self._ask(InferenceRequest(snapshot, history, own, None, None))).interests

    async def rank(self, request: RankingRequest, interests: UserInterests, snapshot: Snapshot) -> Ranked:
        """One request's answer; the interests are of the same snapshot."""
        ranked = (await self._ask(InferenceRequest(snapshot, request.history, -1, interests, request))).ranked
        assert ranked is not None
        return ranked

    async def answer(
        self, request: RankingRequest, own: int, snapshot: Snapshot, interests: UserInterests | None
    ) -> tuple[UserInterests, Ranked]:
        """Interests and list together, in one turn; interests that are known already are of the same snapshot."""
        reply = await self._ask(InferenceRequest(snapshot, request.history, own, interests, request))
        assert reply.ranked is not None
        return reply.interests, reply.ranked

    async def change_snapshot(self, make: Callable[[], Snapshot]) -> None:
        """Takes another snapshot for the requests to come."""
        snapshot = await asyncio.to_thread(make)
        # The items may have changed meanwhile.
        self.snapshot = snapshot if snapshot.release is self.release else snapshot.among_items_of(self.release)

    def change_release(self, release: Release) -> None:
        """Takes the same release with other items on offer for the requests to come."""
        self.release = release
        self.snapshot = self.snapshot.among_items_of(release)

    def warm_up(self) -> None:
        """Runs batches outside the pool, so that the first caller does not pay for first-time allocation.

        Where the size of a batch is not given, it is the largest that a run answers within `BATCH_S`.
        """
        allowed = self.release.catalogue.allowed()
        question = InferenceRequest(self.snapshot, [0], -1, None, RankingRequest(history=[0], n=10, allowed=allowed))

        def seconds(size: int) -> float:
            # Of this thread, which does all of it: what else the machine does meanwhile is not the batch's.
            began = time.thread_time()
            _answer([question] * size, _nobody)
            return time.thread_time() - began

        seconds(1)
        fits, size = 1, 2
        # Twice: the first run of a size allocates for it.
        while size <= (self._limit.chosen_batch or WORTH_IT) and min(seconds(size), seconds(size)) <= BATCH_S:
            fits, size = size, size * 2
        self._limit.set_max_batch(self._limit.chosen_batch or fits)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def run(self, stage: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs work behind the scenes, or of a request that had its turn, in one of the engine's threads."""

        def measured() -> T:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self._metrics.stage(stage, time.perf_counter() - began)

        return await self._batches.run(measured)

    async def run_within_deadline(self, stage: str, work: Callable[[], T]) -> T:
        """Runs a request's own work; refused as any question is where too many wait."""

        def measured(_: Sequence[None], tell: StageTimer) -> Sequence[T]:
            began = time.perf_counter()
            found = work()
            tell(stage, time.perf_counter() - began)
            return [found]

        return await self._batches.ask(measured, None, object())

    async def _ask(self, question: InferenceRequest) -> InferenceResult:
        return await self._batches.ask(self._answer, question, question.snapshot)

    def _answer(self, questions: Sequence[InferenceRequest], tell: StageTimer) -> list[InferenceResult]:
        self._metrics.batch_size.observe(len(questions))
        return _answer(questions, tell)


def _answer(questions: Sequence[InferenceRequest], tell: StageTimer) -> list[InferenceResult]:
    """Of one snapshot; each answered as it would be alone, to the last bit."""
    interests = _interests(questions, tell)
    asked = [place for place, question in enumerate(questions) if question.request is not None]
    lists: dict[int, Ranked] = {}
    if asked:
        began = time.perf_counter()
        requests = [request for question in questions if (request := question.request) is not None]
        together = UserInterests.together([interests[place] for place in asked])
        lists = dict(zip(asked, questions[0].snapshot.recommender.rank(requests, together), strict=True))
        tell("model", time.perf_counter() - began)
    return [InferenceResult(one, lists.get(place)) for place, one in enumerate(interests)]


def _interests(questions: Sequence[InferenceRequest], tell: StageTimer) -> list[UserInterests]:
    unread = [question for question in questions if question.interests is None]
    read: UserInterests | None = None
    if unread:
        recommender, began = questions[0].snapshot.recommender, time.perf_counter()
        histories = [question.history for question in unread]
        interest = recommender.interest(histories)
        between = time.perf_counter()
        read = rounded(recommender.group(histories, interest, [question.own for question in unread]))
        tell("features", between - began)
        tell("group", time.perf_counter() - between)
    found: list[UserInterests] = []
    taken = 0
    for question in questions:
        if question.interests is not None:
            found.append(question.interests)
        elif read is not None:
            found.append(read.rows([taken]))
            taken += 1
    return found


def _nobody(_stage: str, _seconds: float) -> None:
    """Measures nothing."""
