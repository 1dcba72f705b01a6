"""The engine `local`: every piece runs in this process."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from isrf.runtime.cpus import available_cpus
from offline.engine.engine import AnswerT, CallClient, CallT, GivenT, PieceT, ResultT, StageEngine


def usable_cpus() -> int:
    """The smaller of `available_cpus` and OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(available_cpus(), int(limit)) if limit.isdigit() and int(limit) > 0 else available_cpus()


class LocalEngine:
    """Runs pieces one after the other, or in threads where they let go of the interpreter's lock."""

    name = "local"

    def map(
        self,
        work: Callable[[PieceT, *GivenT], ResultT],
        given: tuple[*GivenT],
        pieces: Iterable[PieceT],
        *,
        in_threads: bool = False,
        on_gpu: bool = False,  # noqa: ARG002 - the work itself takes the GPU that this process sees
    ) -> Iterator[ResultT]:
        """As `StageEngine.map`; in threads as many pieces run side by side as there are CPUs."""
        if not in_threads:
            for piece in pieces:
                yield work(piece, *given)
            return
        count = usable_cpus()
        with ThreadPoolExecutor(max_workers=count) as pool:
            waiting: deque[Future[ResultT]] = deque()
            try:
                for piece in pieces:
                    waiting.append(pool.submit(work, piece, *given))
                    if len(waiting) > count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # a caller that stops early must not wait for unneeded results
                for future in waiting:
                    future.cancel()

    def spread(
        self,
        make: Callable[[], CallClient[CallT, AnswerT]],
        *,
        on_gpu: bool,  # noqa: ARG002
        calls_at_once: int,  # noqa: ARG002 - the copy itself bounds nothing, and neither does this engine
    ) -> CallClient[CallT, AnswerT]:
        """One copy, in this process."""
        return make()


LOCAL: StageEngine = LocalEngine()
"""The engine of whoever names none."""
