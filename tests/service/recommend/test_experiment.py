"""Two releases side by side: everybody stays on theirs, and the numbers are kept apart."""

from pathlib import Path

import httpx
import pytest

from service.settings import Experiment, read_experiment
from tests.service.releases import MARK, id_of, named_copy, point, some_users, truncated, two_releases
from tests.service.servers import PATIENCE_S, ServiceProcess
from tests.service.told import counted, reload


@pytest.fixture
def releases(tiny_release: Path, tmp_path: Path) -> Path:
    return two_releases(tiny_release / "current", tmp_path / "releases")


def test_the_share_is_kept_and_a_larger_one_keeps_who_was_in() -> None:
    users = [f"user-{k}" for k in range(20_000)]
    small, large = ({u for u in users if Experiment("r-b", share).holds(u)} for share in (0.1, 0.3))
    assert abs(len(small) / len(users) - 0.1) < 0.01
    assert abs(len(large) / len(users) - 0.3) < 0.015
    assert small < large
    other = {u for u in users if Experiment("r-c", 0.1).holds(u)}
    assert abs(len(small & other) / len(users) - 0.01) < 0.005, "two experiments divide independently"
    assert {u for u in users if Experiment("r-b", 1.0).holds(u)} == set(users)
    assert Experiment("r-b", 1.0).holds("\udcff")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("r-b:10%", ("r-b", 0.1)), (" r.2_x:0.5% ", ("r.2_x", 0.005)), ("a:100%", ("a", 1.0))],
)
def test_an_experiment_is_read(text: str, wanted: tuple[str, float]) -> None:
    assert read_experiment(text) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "text", ["r-b", "r-b:10", "r-b:0%", "r-b:101%", ":5%", "../r-b:5%", "a/b:5%", ".:5%", "..:5%", "r:-1%", "r:nan%"]
)
def test_what_is_no_experiment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an experiment"):
        read_experiment(text)


@pytest.mark.slow
def test_a_write_and_an_erasure_hold_on_both_sides_of_an_experiment(releases: Path, tmp_path: Path) -> None:
    """Users stay where they are, whatever is asked, over a restart and over a switch of `current`."""
    named_copy(releases / "r-a", releases, "r-c")
    a, b, c = (id_of(releases / name) for name in ("r-a", "r-b", "r-c"))
    environment = {"ISRF_EXPERIMENT": "r-b:40%", "ISRF_WATCH_RELEASES_S": "0"}
    service = ServiceProcess(releases, tmp_path / "split", **environment).start()
    users = some_users(releases / "r-a")[:16]

    def arms() -> dict[str, str]:
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http:
            return {user: http.get(f"/recommend/{user}").json()["meta"]["release_id"] for user in users}

    try:
        first = arms()
        chosen = [user for user in users if first[user] == b]
        assert set(first.values()) == {a, b}
        assert arms() == first
        for user in users[:6]:
            answer = httpx.get(f"{service.url}/users/{user}", timeout=PATIENCE_S).json()
            assert answer["meta"]["release_id"] == first[user]
            assert {item.endswith(MARK) for item in answer["history"]} <= {first[user] == b}
        item = httpx.get(f"{service.url}/recommend/{chosen[0]}").json()["items"][0]["item_id"]
        event = {"events": [{"user_id": chosen[0], "item_id": item}]}
        assert httpx.post(f"{service.url}/interactions", json=event).json()["accepted"] == 1
        assert counted(service, f'isrf_release_events_total{{effect="bought",release_id="{b}"}}') == 1
        assert counted(service, f'isrf_answers_total{{release_id="{b}",source="sequence"}}') > 0
        assert counted(service, f'isrf_release_request_seconds_count{{release_id="{a}"}}') > 0
        for user in (chosen[1], next(user for user in users if user not in chosen)):
            assert httpx.delete(f"{service.url}/users/{user}").status_code == 204
            assert httpx.get(f"{service.url}/users/{user}").json()["known"] is False
        service.stop()
        service.start()
        assert arms() == first
        point(releases, "r-c")
        assert reload(service).json()["status"] == "switched"
        assert arms() == {user: c if arm == a else arm for user, arm in first.items()}
        point(releases, "r-b")
        assert reload(service).json()["status"] == "switched"
        assert set(arms().values()) == {b}
        point(releases, "r-a")
        assert reload(service).json()["status"] == "switched"
        assert arms() == first
    finally:
        service.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r-none:10%", "r-broken:10%"])
def test_an_experiment_that_cannot_be_is_no_start(releases: Path, tmp_path: Path, name: str) -> None:
    truncated(named_copy(releases / "r-a", releases, "r-broken"))
    code, error = ServiceProcess(releases, tmp_path / "service", ISRF_EXPERIMENT=name).refused()
    assert code == 3
    assert "error: bundle." in error.splitlines()[-1]
