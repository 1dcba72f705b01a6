"""How often a call is tried and how long it waits: no clock but the test's, no network."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from isrf_client import ClientError, InvalidCallError, NoAnswerError, Patience, ProblemError
from isrf_client.attempts import Outcome, Pause, Steps, Try
from isrf_client.calls import Calls
from isrf_client.values import segment

READS = Patience(timeout_s=1.0, tries=3, deadline_s=10.0, first_pause_s=0.1)
WRITES = Patience(timeout_s=1.0, tries=4, deadline_s=20.0, first_pause_s=0.1)
LOST = httpx.ReadTimeout("")


class Played:
    """Runs steps against a service of the test's; hours pass in no time."""

    def __init__(self, service: Callable[[Try], Outcome], *, takes_s: float = 0.0) -> None:
        self._service, self._takes_s = service, takes_s
        self.now_s = 0.0
        self.tries: list[Try] = []
        self.pauses: list[float] = []

    def calls(self, *, reads: Patience = READS, writes: Patience = WRITES, bulk: Patience = WRITES) -> Calls:
        return Calls(reads=reads, writes=writes, bulk=bulk, clock=lambda: self.now_s)

    def run(self, steps: Steps[Any]) -> Any:
        outcome = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now_s += step.seconds
                    outcome = None
                else:
                    self.tries.append(step)
                    self.now_s += min(self._takes_s, step.timeout_s)
                    outcome = self._service(step)
        except StopIteration as done:
            return done.value


def answers(*outcomes: Outcome) -> Callable[[Try], Outcome]:
    left = iter(outcomes)
    return lambda _: next(left)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": "so", "fix": "do", "request_id": "r"}, headers=headers)


OK = httpx.Response(200, json={"items": []})


@pytest.mark.parametrize(
    "first", [LOST, httpx.ConnectError(""), problem(503, "store.unavailable"), httpx.Response(502, text="<html>")]
)
def test_what_may_pass_is_tried_again(first: Outcome) -> None:
    played = Played(answers(first, OK))
    assert played.run(played.calls().popular({})) == {"items": []}
    assert len(played.tries) == 2
    assert 0.05 <= played.pauses[0] <= 0.1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_will_not_pass_is_not(status: int) -> None:
    played = Played(answers(problem(status, "some.code")))
    with pytest.raises(ProblemError) as caught:
        played.run(played.calls().popular({}))
    error = caught.value
    assert (error.code, error.status, error.detail, error.fix, error.request_id) == (
        "some.code",
        status,
        "so",
        "do",
        "r",
    )


def test_the_last_tries_error_is_raised() -> None:
    played = Played(answers(problem(503, "a.b"), LOST, httpx.ConnectError("")))
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls().popular({}))
    assert caught.value.code == "client.unreachable"
    assert len(played.tries) == READS.tries
    assert played.pauses[1] > played.pauses[0] / 2 * 1.9, "a pause doubles"


def test_retry_after_is_waited_for() -> None:
    played = Played(answers(problem(429, "rate.limited", **{"Retry-After": "7"}), OK))
    played.run(played.calls().popular({}))
    assert played.pauses == [7.0]


def test_a_retry_after_beyond_the_deadline_ends_the_call_at_once() -> None:
    played = Played(answers(problem(429, "rate.limited", **{"Retry-After": "3600"})))
    with pytest.raises(ProblemError) as caught:
        played.run(played.calls().popular({}))
    assert (caught.value.code, caught.value.retry_after_s) == ("rate.limited", 3600.0)
    assert played.now_s == 0.0


@pytest.mark.parametrize(("value", "seconds"), [("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("-1", None)])
def test_a_retry_after_may_be_a_date_or_nonsense(value: str, seconds: float | None) -> None:
    played = Played(lambda _: problem(503, "a.b", **{"Retry-After": value}))
    with pytest.raises(ProblemError) as caught:
        played.run(played.calls().popular({}))
    assert caught.value.retry_after_s == seconds


def test_no_try_outlives_the_deadline() -> None:
    played = Played(lambda _: LOST, takes_s=60.0)
    patience = Patience(timeout_s=4.0, tries=100, deadline_s=10.0, first_pause_s=0.1)
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls(reads=patience).popular({}))
    assert caught.value.code == "client.timeout"
    assert played.now_s == pytest.approx(10.0, abs=0.5)
    assert played.tries[-1].timeout_s < 4.0


def test_a_page_that_is_no_service_is_said_to_be_none() -> None:
    played = Played(lambda _: httpx.Response(200, text="<html>Welcome to the hotel's network"))
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls().popular({}))
    assert caught.value.code == "client.unreadable"
    redirected = Played(answers(httpx.Response(302, headers={"Location": "https://elsewhere.example"})))
    with pytest.raises(ClientError) as other:
        redirected.run(redirected.calls().popular({}))
    assert other.value.code == "http.302"


def posted(step: Try) -> list[dict[str, Any]]:
    assert step.call.body is not None
    events: list[dict[str, Any]] = json.loads(json.dumps(step.call.body))["events"]
    return events


def test_events_keep_their_ids_from_the_first_try_to_the_last() -> None:
    accepted = [{"status": "accepted", "event_id": "x"}, {"status": "accepted", "event_id": "mine"}]
    played = Played(answers(LOST, problem(503, "store.unavailable"), httpx.Response(200, json={"results": accepted})))
    events: Any = [{"user_id": "ann", "item_id": "a"}, {"user_id": "ann", "item_id": "a", "event_id": "mine"}]
    answer = played.run(played.calls().interactions(events))
    assert (answer["accepted"], answer["duplicates"], answer["refused"]) == (2, 0, 0)
    first, *others = [posted(step) for step in played.tries]
    assert others == [first, first]
    assert first[1]["event_id"] == "mine"
    assert len({event["event_id"] for event in first}) == 2
    assert "event_id" not in events[0], "the caller's own event is left alone"
    again = Played(answers(httpx.Response(200, json={"results": accepted})))
    again.run(again.calls().interactions(events))
    assert posted(again.tries[0])[0]["event_id"] != first[0]["event_id"], "the same click twice is two events"


def test_only_what_could_not_be_taken_in_is_sent_again() -> None:
    not_now = {"status": "refused", "reason": "store_unavailable"}
    never = {"status": "refused", "reason": "unknown_item"}
    yes = {"status": "accepted"}
    rounds = iter([[yes, not_now, never, not_now], [not_now, yes], [yes]])
    played = Played(lambda _: httpx.Response(200, json={"results": next(rounds)}))
    events: Any = [{"user_id": "ann", "item_id": str(k)} for k in range(4)]
    answer = played.run(played.calls().interactions(events))
    assert [result["status"] for result in answer["results"]] == ["accepted", "accepted", "refused", "accepted"]
    assert [[event["item_id"] for event in posted(step)] for step in played.tries] == [
        ["0", "1", "2", "3"],
        ["1", "3"],
        ["1"],
    ]


def test_more_events_than_a_request_takes_are_sent_in_parts() -> None:
    def service(step: Try) -> httpx.Response:
        return httpx.Response(
            200, json={"results": [{"status": "accepted", "event_id": e["event_id"]} for e in posted(step)]}
        )

    played = Played(service)
    events: Any = [{"user_id": "ann", "item_id": "a", "event_id": str(k)} for k in range(2001)]
    answer = played.run(played.calls().interactions(events))
    assert [len(posted(step)) for step in played.tries] == [1000, 1000, 1]
    assert [result["event_id"] for result in answer["results"]] == [str(k) for k in range(2001)]
    assert played.run(played.calls().interactions([])) == {"results": [], "accepted": 0, "duplicates": 0, "refused": 0}


def accepting(step: Try) -> httpx.Response:
    return httpx.Response(200, json={"results": [{"status": "accepted"} for _ in posted(step)]})


def test_all_parts_share_one_deadline() -> None:
    patience = Patience(timeout_s=4.0, tries=2, deadline_s=10.0)
    played = Played(accepting, takes_s=3.0)
    events: Any = [{"user_id": "ann", "item_id": "a"} for _ in range(5000)]
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls(writes=patience).interactions(events))
    assert caught.value.code == "client.timeout"
    assert played.now_s == pytest.approx(10.0, abs=0.01)
    many = Played(
        lambda step: httpx.Response(200, json={"answers": [{}] * len((step.call.body or {})["users"])}), takes_s=3.0
    )
    with pytest.raises(NoAnswerError):
        many.run(many.calls(writes=patience).recommend_many([str(k) for k in range(5000)], {}))
    assert many.now_s == pytest.approx(10.0, abs=0.01)


def test_each_part_has_all_its_tries() -> None:
    lost = iter([LOST, None, LOST, None, LOST, None])
    played = Played(lambda step: next(lost) or accepting(step))
    events: Any = [{"user_id": "ann", "item_id": "a"} for _ in range(3000)]
    patience = Patience(timeout_s=1.0, tries=2, deadline_s=20.0)
    assert played.run(played.calls(writes=patience).interactions(events))["accepted"] == 3000


def test_an_error_has_the_events_that_are_to_be_sent_again() -> None:
    services: list[Callable[[Try], Outcome]] = [accepting, lambda _: problem(500, "some.code")]
    parts = iter(services)
    played = Played(lambda step: next(parts)(step))
    events: Any = [{"user_id": "ann", "item_id": str(k)} for k in range(2001)]
    with pytest.raises(ProblemError) as caught:
        played.run(played.calls().interactions(events))
    error = caught.value
    assert "Of 2001 events 1000 were answered" in str(error)
    assert [event["item_id"] for event in error.events] == [str(k) for k in range(1000, 2001)]
    assert [result is None for result in error.results] == [False] * 1000 + [True] * 1001
    assert posted(played.tries[1]) == error.events[:1000], "with the ids that were sent"
    again = Played(accepting)
    assert again.run(again.calls().interactions(error.events))["accepted"] == 1001
    assert posted(again.tries[0]) == posted(played.tries[1])


def test_what_could_not_be_taken_in_is_among_the_events_to_be_sent_again() -> None:
    def service(step: Try) -> Outcome:
        if len(posted(step)) == 1:
            return LOST
        results = [{"status": "accepted"}] * (len(posted(step)) - 1)
        return httpx.Response(200, json={"results": [*results, {"status": "refused", "reason": "store_unavailable"}]})

    played = Played(service)
    events: Any = [{"user_id": "ann", "item_id": str(k)} for k in range(3)]
    with pytest.raises(NoAnswerError) as caught:
        played.run(played.calls().interactions(events))
    assert [event["item_id"] for event in caught.value.events] == ["2"]
    assert caught.value.results[2] is not None


def test_every_result_has_its_events_id() -> None:
    played = Played(lambda _: httpx.Response(200, json={"results": [{"status": "refused", "reason": "unknown_item"}]}))
    answer = played.run(played.calls().interactions([{"user_id": "ann", "item_id": "a"}]))
    assert answer["results"][0]["event_id"] == posted(played.tries[0])[0]["event_id"]


def test_a_call_that_can_never_work_is_not_tried_again() -> None:
    wrong = InvalidCallError("client.invalid_url", "so", fix="do")
    played = Played(answers(wrong))
    with pytest.raises(InvalidCallError):
        played.run(played.calls().popular({}))
    assert len(played.tries) == 1


def test_an_id_is_one_segment_of_a_path() -> None:
    for text in ("a/b", "..", ".", "a?b#c", "ü %", "a%2Fb"):
        assert not set(segment(text)) & set("/?#. "), text


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"timeout_s": 0.0}, {"deadline_s": -1.0}, {"first_pause_s": -1.0}])
def test_a_patience_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is invalid"):
        Patience(**({"timeout_s": 1.0, "tries": 1, "deadline_s": 1.0} | wrong))
