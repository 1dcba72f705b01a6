"""Runs a release's recommender off the event loop, in as many threads as the process has CPUs.

ONNX Runtime and FAISS let go of the GIL; each call uses one thread. It knows neither users nor HTTP: rows in, rows out.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from isrf.recommend import Interests, Ranked, RankRequest
from service.bundle_files import Release
from service.crowd import Crowd, base_crowd
from service.observe import Metrics
from service.state.group_cache import rounded

P = ParamSpec("P")
T = TypeVar("T")


class Engine:
    """One per release."""

    def __init__(self, release: Release, *, num_threads: int, metrics: Metrics) -> None:
        self.release = release
        self.crowd = base_crowd(release)
        """Who may be a neighbour now. A request takes it once: interests and ranking must be of one crowd."""
        self._threads = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="engine")
        self._metrics = metrics

    async def read(self, history: Sequence[int], own: int, crowd: Crowd) -> Interests:
        """Interests of one history (item rows, oldest first), in the precision of the cache; `own` may be −1."""

        def read() -> Interests:
            began = time.perf_counter()
            interest = crowd.recommender.interest([history])
            between = time.perf_counter()
            interests = rounded(crowd.recommender.group([history], interest, [own]))
            self._metrics.stage("features", between - began)
            self._metrics.stage("group", time.perf_counter() - between)
            return interests

        return await self.run(None, read)

    async def rank(self, request: RankRequest, interests: Interests, crowd: Crowd) -> Ranked:
        """One request's answer; the interests are of the same crowd."""
        self._metrics.batch_size.observe(1)
        return await self.run("model", lambda: crowd.recommender.rank([request], interests)[0])

    async def change_crowd(self, make: Callable[[], Crowd]) -> None:
        """Takes another crowd for the requests to come, unless it is of another release."""
        crowd = await asyncio.to_thread(make)
        if crowd.release is self.release:
            self.crowd = crowd

    def warm_up(self) -> None:
        """Runs one request outside the pool, so that the first caller does not pay for first-time allocation."""
        recommender = self.release.recommender
        allowed = self.release.catalogue.allowed()
        recommender.rank([RankRequest(history=[0], n=1, allowed=allowed)], recommender.read([[0]], [-1]))

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def run(self, stage: str | None, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in one of the engine's threads; None where it measures its stages itself."""
        metrics, asked = self._metrics, time.perf_counter()
        metrics.waiting.inc()
        # Whoever takes it out ends the waiting: the thread that begins, or the caller who has gone away before.
        ticket = [None]

        def end_waiting() -> None:
            with contextlib.suppress(IndexError):
                ticket.pop()
                metrics.waiting.dec()

        def measured() -> T:
            began = time.perf_counter()
            end_waiting()
            metrics.stage("queue", began - asked)
            try:
                return work(*args, **kwargs)
            finally:
                if stage is not None:
                    metrics.stage(stage, time.perf_counter() - began)

        # In the caller's context: a stage belongs to the trace of its request.
        inside = contextvars.copy_context().run
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: inside(measured))
        finally:
            end_waiting()
