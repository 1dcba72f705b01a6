"""The engine `ray`: every piece is a task of a Ray cluster.

What all pieces read goes to Ray's object store once. A process opens it on its first piece and keeps it for the next.
Ray runs a task again whose process or node is lost; here that happens a bounded number of times.
"""

import contextlib
import pickle
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic
from weakref import WeakKeyDictionary

from isrf.contract.errors import StageError
from offline.engine.cluster import answers
from offline.engine.engine import AnswerT, CallClient, CallT, GivenT, PieceT, ResultT, WorkerLostError

RETRIES = 3
"""How often a piece runs again after its process was lost."""
AHEAD = 2
"""Pieces in flight for every CPU of the cluster: one runs, the next one waits beside it."""
CHECK_S = 5.0
"""How often the cluster's head is looked for while pieces run."""
LOST_S = 30.0
"""How long the head may not answer before the run ends."""
KEPT = 8
"""Given objects that a process keeps open, the last used ones."""

_opened: OrderedDict[str, Any] = OrderedDict()
"""Of a worker: what it was given, by the id in the object store."""


def run_piece(given: list[Any], work: Callable[..., Any], piece: Any) -> bytes:
    """Runs in a worker. The result is pickled here, so that none of its arrays keeps the object store full."""
    return pickle.dumps(work(piece, *map(_open, given)), protocol=5)


def _open(reference: Any) -> Any:
    import ray

    key = reference.hex()
    if key not in _opened:
        _opened[key] = ray.get(reference)
        if len(_opened) > KEPT:
            _opened.popitem(last=False)
    _opened.move_to_end(key)
    return _opened[key]


class RayEngine:
    """Runs pieces as tasks, each on one CPU, and on one GPU where the work takes one."""

    name = "ray"

    def __init__(self, ray: Any) -> None:
        """`ray` is the package, connected to a cluster."""
        self._ray = ray
        self._piece = ray.remote(run_piece)
        # A client of `ray://` notices by itself that the cluster is gone.
        self._head = None if ray.util.client.ray.is_connected() else ray.get_runtime_context().gcs_address
        self._head_seen = time.monotonic()
        self._sent: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def map(
        self,
        work: Callable[[PieceT, *GivenT], ResultT],
        given: tuple[*GivenT],
        pieces: Iterable[PieceT],
        *,
        in_threads: bool = False,  # noqa: ARG002 - a task has a process of its own
        on_gpu: bool = False,
    ) -> Iterator[ResultT]:
        """As `StageEngine.map`."""
        waiting: deque[Any] = deque()
        try:
            with self._as_errors():
                references = [self._send(value) for value in given]
                self._check_head()
                task = self._piece.options(max_retries=RETRIES, num_cpus=1, num_gpus=int(on_gpu and self.num_gpus > 0))
                most = max(2, AHEAD * self.num_cpus)
            for piece in pieces:
                with self._as_errors():
                    waiting.append(task.remote(references, work, piece))
                if len(waiting) >= most:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for reference in waiting:  # of a caller that stopped early
                with contextlib.suppress(Exception):
                    self._ray.cancel(reference)

    def spread(
        self, make: Callable[[], CallClient[CallT, AnswerT]], *, on_gpu: bool, calls_at_once: int
    ) -> CallClient[CallT, AnswerT]:
        """One copy on every node, or for every GPU."""
        with self._as_errors():
            gpus = int(on_gpu and self.num_gpus > 0)
            nodes = [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
            actor = self._ray.remote(_Copy).options(
                num_cpus=0 if gpus else 1,
                num_gpus=gpus,
                max_restarts=-1,
                max_concurrency=calls_at_once,
                scheduling_strategy="SPREAD",
            )
            copies = [actor.remote(make) for _ in range(self.num_gpus if gpus else max(1, len(nodes)))]
        return _Spread(self._ray, copies)

    @property
    def num_cpus(self) -> int:
        """CPUs of the cluster now."""
        return int(self._ray.cluster_resources().get("CPU", 1))

    @property
    def num_gpus(self) -> int:
        """GPUs of the cluster now."""
        return int(self._ray.cluster_resources().get("GPU", 0))

    def cpus_for(self, count: int) -> int:
        """CPUs for each of `count` processes at once, of which every one fits on a node."""
        largest = max((int(node["Resources"].get("CPU", 1)) for node in self._ray.nodes() if node["Alive"]), default=1)
        return max(1, min(self.num_cpus // count, largest))

    def _send(self, value: object) -> Any:
        """Puts a value into the object store, once for as long as it lives."""
        kind = type(value)
        if kind.__hash__ is not object.__hash__ or not kind.__weakrefoffset__:  # equal values may be different objects
            return self._ray.put(value)
        if value not in self._sent:
            self._sent[value] = self._ray.put(value)
        return self._sent[value]

    def _result(self, reference: Any) -> Any:
        with self._as_errors():
            while not self._ray.wait([reference], timeout=CHECK_S)[0]:
                self._check_head()
            if time.monotonic() - self._head_seen > CHECK_S:
                self._check_head()
            return pickle.loads(self._ray.get(reference))  # noqa: S301 - our own worker's

    def _check_head(self) -> None:
        """Raises where the head has not answered for `LOST_S`; waits as long for one that is started again."""
        if self._head is None:
            return
        while not answers(self._head):
            if time.monotonic() - self._head_seen > LOST_S:
                raise ConnectionError(f"nothing answers at {self._head}")
            time.sleep(1.0)
        self._head_seen = time.monotonic()

    @contextlib.contextmanager
    def _as_errors(self) -> Iterator[None]:
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            raise _cause(error) from error
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError) as e:
            raise StageError(
                "engine.worker_lost",
                f"the process of a piece of work was lost {RETRIES + 1} times: {_first_line(e)}.",
                fix="Look for too little memory on the nodes; then run the same command again, which reuses all "
                "finished stages.",
            ) from e
        except (errors.LocalRayletDiedError, errors.RaySystemError, errors.RpcError, ConnectionError) as error:
            raise StageError(
                "engine.lost",
                f"the Ray cluster does not answer any more: {_first_line(error)}.",
                fix="Start the cluster and run the same command again, which reuses all finished stages.",
            ) from error


def _cause(error: Any) -> BaseException:
    """The error that the work raised."""
    cause: BaseException = error.cause if isinstance(error.cause, BaseException) else error
    return cause


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


class _Copy:
    """In a process of a node: one copy of a caller, and the calls to it."""

    def __init__(self, make: Callable[[], CallClient[Any, Any]]) -> None:
        self._caller = make()

    async def complete(self, call: Any) -> Any:
        return await self._caller.complete(call)

    async def close(self) -> None:
        await self._caller.close()


class _Spread(Generic[CallT, AnswerT]):
    """Hands each call to the copy that has the fewest in flight."""

    def __init__(self, ray: Any, copies: list[Any]) -> None:
        self._ray, self._copies = ray, copies
        self._in_flight = [0] * len(copies)

    async def complete(self, call: CallT) -> AnswerT:
        place = self._in_flight.index(min(self._in_flight))
        self._in_flight[place] += 1
        try:
            answer: AnswerT = await self._copies[place].complete.remote(call)
        except self._ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except self._ray.exceptions.RayError as error:
            raise WorkerLostError(_first_line(error)) from error
        finally:
            self._in_flight[place] -= 1
        return answer

    async def close(self) -> None:
        for copy in self._copies:
            with contextlib.suppress(self._ray.exceptions.RayError):
                await copy.close.remote()
            self._ray.kill(copy)
