"""Runs a release's recommender outside of the event loop, in as many threads as the process has CPUs.

ONNX Runtime and FAISS release the GIL. Each call uses one thread and answers all the questions that waited together
(`service.inference.batching`). It knows neither users nor HTTP: it takes and returns rows.
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
"""How long a batch may take where settings do not give its size: a new question may wait for a whole batch."""
MAX_USEFUL_BATCH = 4
"""Larger batches answer hardly more questions in the same time (docs/lab-notebook.md)."""


class InferenceRequest(NamedTuple):
    """The question of one request to the model.

    Attributes:
        history: item rows, oldest first.
        user_row: the user's row in the snapshot, or −1.
        interests: the user's interests, or None where the model must compute them.
        request: the list to make, or None for the interests alone.
    """

    snapshot: Snapshot
    history: Sequence[int]
    user_row: int
    interests: UserInterests | None
    request: RankingRequest | None


class InferenceResult(NamedTuple):
    """The model's answer to one `InferenceRequest`."""

    interests: UserInterests
    ranked: Ranked | None  # None without a request for a list


class Engine:
    """Runs the model of one release."""

    def __init__(self, release: Release, *, limit: QueueLimit, metrics: Metrics) -> None:
        """limit: of this engine's queue alone."""
        self.release = release
        self.snapshot = base_snapshot(release)
        """The current snapshot. A request reads it once: its interests and its list must use the same snapshot."""
        self._limit, self._metrics = limit, metrics
        self._threads = ThreadPoolExecutor(max_workers=limit.num_threads, thread_name_prefix="engine")
        self._batches = Batches(self._threads, limit, metrics)

    def check(self) -> None:
        """Raises `OverloadError` where the engine would refuse a question now."""
        self._batches.check()

    def is_full(self, under_way: int) -> bool:
        """Whether the engine would refuse a question while `under_way` others ask or are about to ask."""
        return self._batches.is_full(under_way)

    async def read(self, history: Sequence[int], user_row: int, snapshot: Snapshot) -> UserInterests:
        """Returns the interests of a history (item rows, oldest first), rounded as the cache stores them.

        Args:
            user_row: the user's row in the snapshot, or −1.
        """
        return (await self._ask(InferenceRequest(snapshot, history, user_row, None, None))).interests

    async def rank(self, request: RankingRequest, interests: UserInterests, snapshot: Snapshot) -> Ranked:
        """Returns the list of a request; the interests must be of the same snapshot."""
        ranked = (await self._ask(InferenceRequest(snapshot, request.history, -1, interests, request))).ranked
        assert ranked is not None
        return ranked

    async def answer(
        self, request: RankingRequest, user_row: int, snapshot: Snapshot, interests: UserInterests | None
    ) -> tuple[UserInterests, Ranked]:
        """Returns interests and list from one run; interests that are passed must be of the same snapshot."""
        reply = await self._ask(InferenceRequest(snapshot, request.history, user_row, interests, request))
        assert reply.ranked is not None
        return reply.interests, reply.ranked

    async def change_snapshot(self, make: Callable[[], Snapshot]) -> None:
        """Makes a new snapshot in a thread, and uses it for later requests."""
        snapshot = await asyncio.to_thread(make)
        # The items may have changed meanwhile.
        self.snapshot = snapshot if snapshot.release is self.release else snapshot.with_items_of(self.release)

    def change_release(self, release: Release) -> None:
        """Uses the same release with changed items for later requests."""
        self.release = release
        self.snapshot = self.snapshot.with_items_of(release)

    def warm_up(self) -> None:
        """Runs batches outside of the pool, so that the first caller does not wait for the first allocations.

        Where settings do not give the size of a batch, this chooses the largest size that a run answers in `BATCH_S`.
        """
        allowed = self.release.catalogue.allowed()
        question = InferenceRequest(self.snapshot, [0], -1, None, RankingRequest(history=[0], n=10, allowed=allowed))

        def seconds(size: int) -> float:
            # CPU time of this thread, which does all the work: other work of the machine must not count.
            began = time.thread_time()
            _answer([question] * size, _ignore_time)
            return time.thread_time() - began

        seconds(1)
        fits, size = 1, 2
        # Twice: the first run of a size allocates for it.
        while size <= (self._limit.chosen_batch or MAX_USEFUL_BATCH) and min(seconds(size), seconds(size)) <= BATCH_S:
            fits, size = size, size * 2
        self._limit.set_max_batch(self._limit.chosen_batch or fits)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def run(self, stage: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs background work, or a later step of a request, in one of the engine's threads."""

        def measured() -> T:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self._metrics.stage(stage, time.perf_counter() - began)

        return await self._batches.run(measured)

    async def run_within_deadline(self, stage: str, work: Callable[[], T]) -> T:
        """Runs a step of a request, which is refused like a question where too many wait."""

        def measured(_: Sequence[None], record_time: StageTimer) -> Sequence[T]:
            began = time.perf_counter()
            result = work()
            record_time(stage, time.perf_counter() - began)
            return [result]

        return await self._batches.ask(measured, None, object())

    async def _ask(self, question: InferenceRequest) -> InferenceResult:
        return await self._batches.ask(self._answer, question, question.snapshot)

    def _answer(self, questions: Sequence[InferenceRequest], record_time: StageTimer) -> list[InferenceResult]:
        self._metrics.batch_size.observe(len(questions))
        return _answer(questions, record_time)


def _answer(questions: Sequence[InferenceRequest], record_time: StageTimer) -> list[InferenceResult]:
    """Answers questions of one snapshot; each answer equals that of the question alone, to the last bit."""
    interests = _interests(questions, record_time)
    with_list = [index for index, question in enumerate(questions) if question.request is not None]
    lists: dict[int, Ranked] = {}
    if with_list:
        began = time.perf_counter()
        requests = [request for question in questions if (request := question.request) is not None]
        batch = UserInterests.together([interests[index] for index in with_list])
        lists = dict(zip(with_list, questions[0].snapshot.recommender.rank(requests, batch), strict=True))
        record_time("model", time.perf_counter() - began)
    return [InferenceResult(of_question, lists.get(index)) for index, of_question in enumerate(interests)]


def _interests(questions: Sequence[InferenceRequest], record_time: StageTimer) -> list[UserInterests]:
    """Returns the interests of each question; computes those that the questions do not bring."""
    without = [question for question in questions if question.interests is None]
    computed: UserInterests | None = None
    if without:
        recommender, began = questions[0].snapshot.recommender, time.perf_counter()
        histories = [question.history for question in without]
        interest = recommender.interest(histories)
        between = time.perf_counter()
        computed = rounded(recommender.group(histories, interest, [question.user_row for question in without]))
        record_time("features", between - began)
        record_time("group", time.perf_counter() - between)
    interests: list[UserInterests] = []
    next_row = 0
    for question in questions:
        if question.interests is not None:
            interests.append(question.interests)
        elif computed is not None:
            interests.append(computed.rows([next_row]))
            next_row += 1
    return interests


def _ignore_time(_stage: str, _seconds: float) -> None:
    """Records nothing."""
