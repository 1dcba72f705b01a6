"""One controller says who may come in: places, shares, strangers, the model's room, and who still needs work done."""

import contextlib
import contextvars
import time
from collections.abc import Iterator

import pytest

from isrf.contract.errors import OverloadError
from service.inference.admission import MAX_IMPORTS_OF_ONE, MAX_STRANGERS, AdmissionController, Arrival
from service.inference.deadline import CallerConnection, current_deadline
from service.inference.limits import LoadLimits
from service.inference.model_shares import ModelCall
from service.telemetry.metrics import Metrics

MOST = 8


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def admission(metrics: Metrics) -> AdmissionController:
    return AdmissionController(LoadLimits(2, max_batch=4, max_in_progress=MOST), metrics, deadline_s=60)


def call(made: object, caller: str | None, room: int) -> ModelCall:
    """Of a model with room for so many lists; who asks for one that is just made needs none."""

    def has_room(under_way: int, shared: bool) -> bool:
        return under_way < room or shared

    return ModelCall(made, caller, has_room)


@contextlib.contextmanager
def entered(admission: AdmissionController, call: ModelCall) -> Iterator[None]:
    admission.enter(call)
    yield
    admission.leave(call)


def not_run(metrics: Metrics, reason: str) -> float:
    wanted = f'isrf_model_not_run_total{{reason="{reason}"}}'
    lines = metrics.exposition().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(wanted)), 0.0)


def test_as_many_are_let_in_as_may_be_under_way_and_probes_always(admission: AdmissionController) -> None:
    for _ in range(MOST):
        assert admission.admits(Arrival.KNOWN, None)
        admission.begins(known=True)
    assert not admission.admits(Arrival.KNOWN, None)
    assert admission.admits(Arrival.PROBE, None)
    assert admission.admits(Arrival.STRANGER, None), "they take nobody's place, and nobody takes theirs"
    admission.ends(known=True)
    assert admission.admits(Arrival.KNOWN, None)


def test_who_sends_a_body_or_does_not_read_takes_no_place_of_the_others(admission: AdmissionController) -> None:
    for _ in range(MOST):
        admission.begins(known=True)
    with admission.senders.take("a"):
        assert admission.admits(Arrival.KNOWN, None)
    with admission.imports.take("a"):
        assert admission.admits(Arrival.KNOWN, None)
    assert not admission.admits(Arrival.KNOWN, None)
    admission.unread.add(object())
    assert admission.admits(Arrival.KNOWN, None)
    with contextlib.ExitStack() as held:
        for name in "ab" * (MOST // 2):
            held.enter_context(admission.requests.take(name))
        assert not admission.admits(Arrival.KNOWN, None), "all places are taken, whoever does not read"


def test_strangers_have_an_end_of_their_own(admission: AdmissionController) -> None:
    for _ in range(MAX_STRANGERS):
        admission.begins(known=False)
    assert not admission.admits(Arrival.STRANGER, None)
    assert admission.admits(Arrival.KNOWN, None)


def test_no_caller_holds_all_places_of_a_kind(admission: AdmissionController) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(MAX_IMPORTS_OF_ONE):
            held.enter_context(admission.imports.take("a"))
        with pytest.raises(OverloadError) as refused:
            admission.imports.take("a")
        assert refused.value.code == "overload.too_many_at_once"
        held.enter_context(admission.imports.take("b"))


def test_the_model_is_refused_where_it_has_no_room(admission: AdmissionController, metrics: Metrics) -> None:
    first, same, other = call("a list", "a", 1), call("a list", "b", 1), call("another", "b", 1)
    assert admission.admits(Arrival.KNOWN, first)
    with entered(admission, first):
        assert admission.admits(Arrival.KNOWN, same), "its making is shared"
        assert not admission.admits(Arrival.KNOWN, other)
        with pytest.raises(OverloadError) as refused:
            admission.at_model(other).__enter__()
        assert refused.value.code == "overload.refused"
        assert not_run(metrics, "refused") == 2
    with admission.at_model(other):
        assert not admission.admits(Arrival.KNOWN, first)
    assert admission.admits(Arrival.KNOWN, first)


def test_while_others_call_three_quarters_of_the_model_are_one_callers_all(
    admission: AdmissionController, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with contextlib.ExitStack() as inside:
        for count in range(6):
            assert admission.admits(Arrival.KNOWN, call(count, "a", 8)), "alone"
            inside.enter_context(entered(admission, call(count, "a", 8)))
        assert admission.admits(Arrival.KNOWN, call("b", "b", 8)), "there is room for the other"
        assert not admission.admits(Arrival.KNOWN, call("a", "a", 8)), "six of eight places are taken"
        now = 11.0
        assert admission.admits(Arrival.KNOWN, call("b", "b", 7)), "who comes back begins it again"
        now = 30.0
        assert admission.admits(Arrival.KNOWN, call("b", "b", 7))
        with entered(admission, call("stranger", None, 8)):
            assert admission.admits(Arrival.STRANGER, call("x", None, 7)), "strangers are not counted there"


@pytest.mark.parametrize(
    ("max_batch", "waiting", "soon"), [(1, 16, 18), (16, 32, 64)], ids=["small batches", "large batches"]
)
def test_a_queue_has_room_for_a_batch_of_each_thread(
    admission: AdmissionController, metrics: Metrics, max_batch: int, waiting: int, soon: int
) -> None:
    queue = admission.queue()
    queue.set_max_batch(max_batch)
    assert (queue.is_full(waiting - 1), queue.is_full(waiting)) == (False, True)
    assert (queue.is_full_soon(soon - 1), queue.is_full_soon(soon)) == (False, True)
    assert queue.refusal().code == "overload.refused"
    assert not_run(metrics, "refused") == 1


@pytest.mark.parametrize(
    ("seconds", "cut", "code"), [(60, False, None), (0, False, "overload.expired"), (60, True, "overload.caller_gone")]
)
def test_nothing_is_begun_for_who_is_late_or_gone(
    metrics: Metrics, seconds: float, cut: bool, code: str | None
) -> None:
    admission = AdmissionController(LoadLimits(1), metrics, deadline_s=seconds)
    line = CallerConnection()
    request = contextvars.Context()
    request.run(admission.start_deadline, line)
    line.is_closed = cut
    error = admission.queue().refusal_to_begin(request.run(current_deadline))
    assert getattr(error, "code", None) == code
    assert (request.run(admission.abandoned) is not None) == cut
    if code is not None:
        assert not_run(metrics, code.removeprefix("overload.")) == 1
