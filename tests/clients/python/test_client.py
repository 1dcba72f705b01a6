"""Both clients against a real service."""

import asyncio
import inspect
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from isrf_client import AsyncClient, Client, ClientError, NoAnswerError, Patience, ProblemError, answers, operations
from isrf_client.attempts import Steps, Try
from isrf_client.calls import MAX_USERS, MOST_EXPLAINED, MOST_ITEMS, USUAL_N, Calls, Exported

from service.api.openapi import resolved
from service.app import create_app
from service.auth import request_cost as cost
from service.settings import Settings
from tests.service.auth.test_doors import Guarded
from tests.service.releases import shopper_of
from tests.service.servers import PATIENCE_S, ServiceProcess, free_port

PATIENT = Patience(timeout_s=PATIENCE_S, tries=1, deadline_s=PATIENCE_S)
INSISTENT = Patience(timeout_s=PATIENCE_S, tries=1000, deadline_s=PATIENCE_S)
AT_MOST = {"attribute": "brand", "count": 1}


class Both:
    """One of the two clients, called alike."""

    def __init__(self, kind: type[Client] | type[AsyncClient], **options: Any) -> None:
        self._kind, self._options = kind, {"reads": PATIENT, "writes": INSISTENT} | options

    def __call__(self, url: str, method: str, *arguments: Any, **options: Any) -> Any:
        if self._kind is Client:
            with Client(url, **self._options) as client:
                return getattr(client, method)(*arguments, **options)

        async def ask() -> Any:
            async with AsyncClient(url, **self._options) as client:
                return await getattr(client, method)(*arguments, **options)

        return asyncio.run(ask())


@pytest.fixture(params=[Client, AsyncClient])
def call(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


@pytest.fixture(scope="module")
def service(demo_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(demo_release, tmp_path_factory.mktemp("called")).start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def shopper(demo_release: Path) -> str:
    return shopper_of(demo_release / "current")


def item_ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_a_shops_calls(call: Both, service: ServiceProcess, shopper: str) -> None:
    first = item_ids(call(service.url, "recommend", shopper, n=5, explain=True, include_seen=False))
    assert len(first) == 5
    without = call(service.url, "recommend", shopper, n=5, exclude=first[:2])
    assert not set(item_ids(without)) & set(first[:2])
    answer = call(service.url, "recommend_session", call(service.url, "user", shopper)["history"], n=3)
    assert (answer["meta"]["source"], len(answer["items"])) == ("session", 3)
    assert len(call(service.url, "popular", n=7, min_price=20.0, diversity=0.5)["items"]) == 7
    ordered = item_ids(call(service.url, "rank", first[::-1], user_id=shopper))
    assert (sorted(ordered), len(ordered)) == (sorted(first), 5)
    alike = call(service.url, "similar", first[0], n=4)
    assert (alike["item_id"], len(set(item_ids(alike)) - {first[0]})) == (first[0], 4)


@pytest.mark.parametrize("user_id", ["a/b", "..", "../popular", ".", "a b?n=1#x", "ü%2F%", "–,", "x" * 512])
def test_any_user_is_known_by_one_event_and_gone_when_erased(call: Both, service: ServiceProcess, user_id: str) -> None:
    (item_id,) = item_ids(call(service.url, "popular", n=1))
    posted = call(service.url, "interactions", [{"user_id": user_id, "item_id": item_id, "event": "view"}])
    assert posted["accepted"] == 1
    told = call(service.url, "user", user_id)
    assert (told["user_id"], told["history"]) == (user_id, [item_id])
    least = call(service.url, "user", user_id, last=0)
    assert (least["history"], least["history_total"]) == ([], 1)
    assert call(service.url, "recommend", user_id, n=1)["user_id"] == user_id
    assert call(service.url, "erase", user_id) is None
    assert call(service.url, "user", user_id)["known"] is False


@pytest.mark.parametrize("item_id", ["x\n", "\n", "x\r\n", "a\x00", "x\u0085"])
def test_an_id_with_a_control_character_is_refused_and_becomes_no_other(
    call: Both, service: ServiceProcess, item_id: str
) -> None:
    for method in ("put_item", "item", "hide_item", "similar", "recommend", "user", "erase"):
        with pytest.raises(ProblemError) as caught:
            call(service.url, method, item_id)
        assert (caught.value.status, caught.value.code.removesuffix("_id")) in [
            (422, "request.invalid_item"),
            (422, "request.invalid_user"),
        ]
    posted = call(service.url, "interactions", [{"user_id": item_id, "item_id": item_id}])
    assert posted["results"][0]["reason"] == "invalid_user_id"
    for left in filter(None, {item_id.strip(), item_id[:1].strip()}):
        with pytest.raises(ProblemError, match=r"request\.(unknown_item|invalid_item_id)"):
            call(service.url, "item", left)


def test_a_list_is_read_on_as_it_was(call: Both, service: ServiceProcess, shopper: str) -> None:
    first = call(service.url, "recommend", shopper, n=3)
    shown = first["meta"]["recommendation_id"]
    place = {"recommendation_id": shown, "offset": first["meta"]["next_offset"]}
    second = item_ids(call(service.url, "recommend", shopper, n=3, **place))
    assert len({*item_ids(first), *second}) == 6
    clicked: Any = {"user_id": shopper, "item_id": second[0], "event": "view", "recommendation_id": shown}
    assert call(service.url, "interactions", [clicked])["accepted"] == 1
    assert item_ids(call(service.url, "recommend", shopper, n=3, **place)) == second


def test_placements_are_put_shown_and_removed(call: Both, service: ServiceProcess, shopper: str) -> None:
    name = f"row-{uuid.uuid4().hex}"
    put = call(service.url, "put_placement", name, kind="for-user", length=3, rules=[{"at_most": AT_MOST}])
    shown = call(service.url, "placement", name)
    assert (shown["version"], shown["placement"]) == (put["version"], put["placement"])
    listed = {one["name"]: one["version"] for one in call(service.url, "placements")["placements"]}
    assert listed[name] == put["version"]
    answer = call(service.url, "placement_items", name, user_id=shopper, cart=[7])
    assert (len(answer["items"]), answer["meta"]["placement_version"]) == (3, put["version"])
    with pytest.raises(ProblemError) as changed:
        call(service.url, "put_placement", name, kind="popular", expected_version=put["version"] - 1)
    assert changed.value.code == "placement.changed"
    assert call(service.url, "delete_placement", name, expected_version=put["version"]) is None
    with pytest.raises(ProblemError) as gone:
        call(service.url, "placement", name)
    assert gone.value.code == "placement.unknown"


def test_attributes_tell_what_conditions_may_name(call: Both, service: ServiceProcess) -> None:
    (brand,) = (one for one in call(service.url, "attributes", limit=1)["attributes"] if one["name"] == "brand")
    assert brand["type"] == "text"
    assert call(service.url, "popular", n=1, filter=f"brand = '{brand['examples'][0]}'")["items"]


def test_a_session_stands_in_for_a_history(call: Both, service: ServiceProcess) -> None:
    session = item_ids(call(service.url, "popular", n=3))
    nobody = uuid.uuid4().hex
    asked = call(service.url, "recommend", nobody, n=4, session=session)
    assert asked["meta"]["source"] == "session"
    assert item_ids(asked) == item_ids(call(service.url, "recommend_session", session, n=4, user_id=nobody))


def test_an_item_comes_changes_and_goes(call: Both, service: ServiceProcess) -> None:
    item_id = f"a/b ..{uuid.uuid4().hex}"
    with pytest.raises(ProblemError) as unknown:
        call(service.url, "item", item_id)
    assert unknown.value.code == "request.unknown_item"
    (like,) = item_ids(call(service.url, "popular", n=1))
    title = call(service.url, "item", like)["item"]["title"]
    assert call(service.url, "put_item", item_id, title=title, price=5.0)["status"] == "added"
    assert call(service.url, "put_item", item_id, price=None)["status"] == "changed"
    shown = call(service.url, "item", item_id)["item"]
    assert (shown["title"], shown["price"], shown["in_release"]) == (title, None, False)
    assert call(service.url, "hide_item", item_id) is None
    with pytest.raises(ProblemError):
        call(service.url, "item", item_id)


def test_a_placement_is_tried_before_it_is_put(call: Both, service: ServiceProcess, shopper: str) -> None:
    (item_id,) = item_ids(call(service.url, "popular", n=1))
    rules = [{"boost": {"where": "price < 60", "by": 5}}]
    tried: answers.Placement = {"kind": "for-user", "rules": rules}  # type: ignore[typeddict-item]
    preview = call(service.url, "preview_placement", tried, user_id=shopper, cart=[item_id], n=4, name="tried")
    assert preview["before_is"] == "without_rules"
    assert len(item_ids(preview["before"])) == len(item_ids(preview["after"])) == 4
    assert [rule["kind"] for rule in preview["rules"]] == ["boost"]
    with pytest.raises(ProblemError, match=r"placement\.unknown"):
        call(service.url, "placement_items", "tried")


def test_what_is_imported_is_exported(service: ServiceProcess) -> None:
    mark = uuid.uuid4().hex
    with Client(service.url, bulk=INSISTENT) as client:
        titles = {f"{mark}-{k}": f"Green tea {k}" for k in range(12)}
        added = client.import_items({"item_id": item_id, "title": title} for item_id, title in titles.items())
        assert (added["lines"], added["accepted"], added["refused"]) == (12, 12, 0)
        exported = {line["item_id"]: line.get("title") for line in client.export_items()}
        assert {item_id: exported[item_id] for item_id in titles} == titles
        events: list[Any] = [{"user_id": mark, "item_id": item_id, "event": "view"} for item_id in [*titles][:3]]
        posted = client.import_events([*events, {"user_id": mark, "item_id": f"no-{mark}"}])
        assert (posted["accepted"], posted["reasons"]) == (3, {"unknown_item": 1})
        assert [one["line"] for one in posted["problems"]] == [4]
        lines = [line for line in client.export_events() if line["user_id"] == mark]
        assert sorted(line["item_id"] for line in lines) == sorted(event["item_id"] for event in events)
        (state,) = [line for line in client.export_users() if line["user_id"] == mark]
        assert client.import_users([state | {"user_id": f"{mark}-2"}])["accepted"] == 3
        assert client.user(f"{mark}-2")["history"] == client.user(mark)["history"]
        assert client.import_events(lines)["duplicates"] == 3  # type: ignore[arg-type]
        client.import_items({"item_id": item_id, "available": False} for item_id in titles)


def test_an_operators_calls(call: Both, service: ServiceProcess) -> None:
    ready = call(service.url, "ready")
    assert (ready["status"], ready["store"]) == ("ready", "ok")
    assert call(service.url, "reload")["release_id"] == ready["release_id"]
    assert isinstance(call(service.url, "stats")["releases"], list)


def test_many_users_are_asked_about_in_parts(call: Both, service: ServiceProcess, shopper: str) -> None:
    users = [shopper, *(f"nobody-{k}" for k in range(MAX_USERS))]
    found = call(service.url, "recommend_many", users, n=1)
    assert [answer["user_id"] for answer in found] == users
    # The item alone: events of the tests before count for everybody a moment later, and move scores.
    (first,), (again,) = found[0]["items"], call(service.url, "recommend", shopper, n=1)["items"]
    assert first["item_id"] == again["item_id"]
    # However long the lists are, and whether or not they are explained.
    for options in ({"n": 200}, {"n": 200, "explain": True}, {"explain": True}):
        some = users[:150] if options == {"explain": True} else users[: 12 if "explain" in options else 70]
        found = call(service.url, "recommend_many", some, **options)
        assert [answer["user_id"] for answer in found] == some
        assert {len(answer["items"]) for answer in found} == {options.get("n", 10)}


def test_parts_are_as_large_as_the_service_takes() -> None:
    assert (MOST_ITEMS, MOST_EXPLAINED) == (cost.MOST_ITEMS, cost.MOST_EXPLAINED)
    assert (
        create_app(Settings()).openapi()["components"]["schemas"]["UsersRequest"]["properties"]["n"]["default"]
        == USUAL_N
    )


def test_a_refusal_is_an_exception_with_the_services_code(call: Both, service: ServiceProcess) -> None:
    with pytest.raises(ProblemError) as caught:
        call(service.url, "recommend", "ann", n=0)
    assert (caught.value.code, caught.value.status) == ("request.invalid", 422)
    assert caught.value.request_id
    with pytest.raises(ProblemError) as unknown:
        call(service.url, "popular", **{"include-seen": True})
    assert unknown.value.code == "request.unknown_parameter"
    assert "Its parameters" in unknown.value.fix


def test_nobody_there_is_an_exception_too(call: Both) -> None:
    with pytest.raises(NoAnswerError) as caught:
        call(f"http://127.0.0.1:{free_port()}", "popular")
    assert caught.value.code == "client.unreachable"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_service_that_is_silent_is_given_up(kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hasty = Patience(timeout_s=0.05, tries=2, deadline_s=PATIENCE_S)
        with pytest.raises(NoAnswerError) as caught:
            Both(kind, reads=hasty)(f"http://127.0.0.1:{silent.getsockname()[1]}", "popular")
    assert caught.value.code == "client.timeout"


class LosingProxy:
    """Passes requests on to a service, and loses as many of its answers as it is told to."""

    def __init__(self, port: int, *, losses: int) -> None:
        self.losses, self._to = losses, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._to)) as server:
                threading.Thread(target=_pump, args=(client, server), daemon=True).start()
                answer = server.recv(65536)
                if self.losses and answer:
                    self.losses -= 1
                    # Closing alone ends nothing while the other thread reads.
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                while answer:
                    client.sendall(answer)
                    answer = server.recv(65536)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_an_event_whose_answer_was_lost_counts_once(call: Both, service: ServiceProcess) -> None:
    someone = uuid.uuid4().hex
    (item_id,) = item_ids(call(service.url, "popular", n=1))
    proxy = LosingProxy(service.port, losses=2)
    posted = call(proxy.url, "interactions", [{"user_id": someone, "item_id": item_id, "event": "view"}] * 2)
    proxy.close()
    assert proxy.losses == 0
    assert [result["status"] for result in posted["results"]] == ["duplicate", "duplicate"]
    assert call(service.url, "user", someone)["history"] == [item_id, item_id]


def test_events_wait_for_a_service_that_comes_back(demo_release: Path, tmp_path: Path) -> None:
    process = ServiceProcess(demo_release, tmp_path)
    answers: list[Any] = []
    try:
        process.start()
        (item_id,) = item_ids(Both(Client)(process.url, "popular", n=1))
        process.kill()

        def post(call: Both, user_id: str) -> None:
            event = {"user_id": user_id, "item_id": item_id, "event": "view"}
            answers.append(call(process.url, "interactions", [event]))

        posting = [
            threading.Thread(target=post, args=(Both(kind), kind.__name__), daemon=True)
            for kind in (Client, AsyncClient)
        ]
        for one in posting:
            one.start()
        process.start()
        for one in posting:
            one.join(timeout=PATIENCE_S)
        assert [answer["accepted"] for answer in answers] == [1, 1]
        for user_id in ("Client", "AsyncClient"):
            assert Both(Client)(process.url, "user", user_id)["history"] == [item_id]
    finally:
        process.kill()


def test_a_key_is_sent_and_never_shown(demo_release: Path, tmp_path: Path) -> None:
    guarded = Guarded(demo_release, tmp_path)
    guarded.start()
    try:
        for kind in (Client, AsyncClient):
            client = Both(kind, api_key=guarded.keys["read"])
            assert item_ids(client(guarded.url, "popular", n=1))
            with pytest.raises(ProblemError) as caught:
                client(guarded.url, "erase", "ann")
            assert caught.value.code == "key.insufficient"
            assert guarded.keys["read"] not in str(caught.value)
            with pytest.raises(ProblemError) as without:
                Both(kind)(guarded.url, "popular")
            assert without.value.code == "key.missing"
    finally:
        guarded.kill()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://shop"},
        {"base_url": "127.0.0.1:8000"},
        {"base_url": "http://shop?x=1"},
        {"api_key": "a\nb"},
        {"api_key": ""},
        {"api_key": "ü"},
    ],
)
def test_what_cannot_work_is_refused_when_the_client_is_made(kind: Callable[..., Any], wrong: dict[str, str]) -> None:
    options: dict[str, Any] = {"base_url": "http://127.0.0.1:8000", **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(options.pop("base_url"), **options)


def test_both_clients_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, str]:
        signatures = {name: str(inspect.signature(method)) for name, method in vars(kind).items() if name[0] != "_"}
        return {name: signature.replace("AsyncIterator", "Iterator") for name, signature in signatures.items()}

    assert calls(Client) == calls(AsyncClient)


NOT_OF_A_SHOP = {
    "/livez": "an orchestrator's",
    "/metrics": "Prometheus'",
    "/studio": "the service's own page's",
    "/pixel.gif": "an image's",
    "/webhooks": "a shop system's",
}
"""Paths that the clients leave to others, by their beginning, and whose they are."""
OF_A_BROWSER = "/beacon"
"""What the JavaScript client alone calls."""
ARGUMENTS: dict[str, list[Any]] = {
    "rank": [["i"], {}],
    "recommend_session": [["i"], {}],
    "recommend_many": [["u"], {}],
    "popular": [{}],
    "user": ["u", None],
    "erase": ["u"],
    "affinities": ["u", None, None],
    "attributes": [None],
    "item": ["i"],
    "hide_item": ["i"],
    "placements": [],
    "placement": ["p"],
    "put_placement": ["p", {}, None],
    "preview_placement": [{}, {}],
    "delete_placement": ["p", None],
    "interactions": [[{"user_id": "u", "item_id": "i"}]],
    "import_items": [[{"item_id": "i"}]],
    "import_users": [[{"user_id": "u"}]],
    "import_events": [[{"user_id": "u", "item_id": "i"}]],
    "ready": [],
    "reload": [],
    "stats": [],
}
"""Of the calls that do not take an id and options."""


def test_there_is_a_call_for_every_route() -> None:
    routes = {
        (method.upper(), re.sub(r"{\w+}", "x", path))
        for path, methods in create_app(Settings.model_construct()).openapi()["paths"].items()
        for method in methods
        if not path.startswith((*NOT_OF_A_SHOP, OF_A_BROWSER))
    }
    calls = Calls(reads=PATIENT, writes=PATIENT, bulk=PATIENT, clock=time.monotonic)
    called: set[tuple[str, str]] = set()
    for name in {name for name in vars(Calls) if name[0] != "_"} - {"export"}:
        called.add(_route_of(getattr(calls, name)(*ARGUMENTS.get(name, ["x", {}]))))
    called |= {_route_of(calls.export(what)) for what in get_args(Exported)}
    assert called == routes


def _route_of(steps: Steps[Any]) -> tuple[str, str]:
    step = next(steps)
    assert isinstance(step, Try)
    return step.call.method, re.sub("/[uipx](?=/|$)", "/x", step.call.path)


def test_the_types_are_those_of_the_openapi_document() -> None:
    document = create_app(Settings()).openapi()
    schemas = document["components"]["schemas"]
    typed = {name: kind for name, kind in (vars(answers) | vars(operations)).items() if name in schemas}
    assert len(typed) >= 40
    for name, kind in typed.items():
        fields = set(get_type_hints(kind))
        assert fields <= set(schemas[name]["properties"]), name
        if name not in ("InteractionsAnswer", "Imported"):  # of all requests that were needed
            assert ("meta" in fields) == ("meta" in schemas[name]["properties"]), name
    takes_away = {name for name, kind in get_type_hints(answers.ItemBody).items() if type(None) in get_args(kind)}
    assert takes_away == {
        name for name, one in schemas["ItemBody"]["properties"].items() if {"type": "null"} in one["anyOf"]
    }
    assert set(get_type_hints(answers.RankOptions)) <= set(schemas["RankRequest"]["properties"])
    assert set(get_type_hints(answers.ListOptions)) <= set(schemas["UsersRequest"]["properties"])
    assert set(get_type_hints(answers.SessionOptions)) <= set(schemas["SessionRequest"]["properties"])
    assert set(get_type_hints(answers.PreviewOptions)) == set(schemas["PreviewRequest"]["properties"]) - {"placement"}
    event = schemas["InteractionsRequest"]["properties"]["events"]["items"]
    assert set(get_type_hints(answers.Event)) <= set(event["properties"])
    # `context` is sent as `context.NAME`, names of the caller's own.
    of_routes = {
        path: {resolved(document, part)["name"] for part in document["paths"][path]["get"]["parameters"]}
        for path in ("/popular", "/recommend/{user_id}")
    }
    assert set(get_type_hints(answers.PageOptions)) <= {"context", *of_routes["/popular"]}
    assert set(get_type_hints(answers.UserOptions)) <= {"context", *of_routes["/recommend/{user_id}"]}


def test_every_error_is_a_client_error() -> None:
    assert issubclass(ProblemError, ClientError)
    assert issubclass(NoAnswerError, ClientError)
