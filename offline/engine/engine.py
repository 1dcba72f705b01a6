"""The interface between a stage and the machines that run it: pieces of work, and callers that answer one at a time.

A stage cuts its work into pieces that do not depend on the engine, and gives the engine a function of a module. So
every engine computes the same pieces with the same function, and gives the same results in the order of the pieces.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, TypeVarTuple

PieceT = TypeVar("PieceT")
ResultT = TypeVar("ResultT")
CallT = TypeVar("CallT", contravariant=True)
AnswerT = TypeVar("AnswerT", covariant=True)
GivenT = TypeVarTuple("GivenT")


class CallClient(Protocol[CallT, AnswerT]):
    """Answers calls, many at once, in one event loop."""

    async def complete(self, call: CallT) -> AnswerT: ...
    async def close(self) -> None: ...


class StageEngine(Protocol):
    """Runs the pieces of a stage."""

    @property
    def name(self) -> str:
        """As `--engine` names it."""
        ...

    def map(
        self,
        work: Callable[[PieceT, *GivenT], ResultT],
        given: tuple[*GivenT],
        pieces: Iterable[PieceT],
        *,
        in_threads: bool = False,
        on_gpu: bool = False,
    ) -> Iterator[ResultT]:
        """Yields `work(piece, *given)` for every piece, in their order; some pieces run ahead of the caller.

        An error of `work` passes through. A piece whose process or node is lost runs again, and no other.

        Args:
            work: a function of a module, which changes nothing of what it is given.
            given: what all pieces read; it reaches a process once, however large it is. The same object in a later
                call is not sent again.
            pieces: small values, taken as they are needed.
            in_threads: whether the work spends its time outside of the interpreter's lock, so that one process may run
                pieces side by side.
            on_gpu: whether a piece takes a GPU where there is one.

        Raises:
            StageError: `engine.worker_lost`, the processes of one piece were lost too often; `engine.lost`, the cluster
                does not answer any more.
        """
        ...

    def spread(
        self, make: Callable[[], CallClient[CallT, AnswerT]], *, on_gpu: bool, calls_at_once: int
    ) -> CallClient[CallT, AnswerT]:
        """A caller whose calls go to copies of `make()` on all nodes; where there is one node, or none, to one copy.

        A call whose copy is lost raises `WorkerLostError`. It was perhaps answered, but nobody knows the answer.

        Args:
            make: makes a caller; a function that can be pickled.
            on_gpu: whether a copy takes a GPU where there are some.
            calls_at_once: the most calls in flight.
        """
        ...


class WorkerLostError(Exception):
    """The process that was answering a call has ended."""
