"""Replays a period's events over HTTP: asks a running service before each event, then sends it the event.

    python benchmarks/replay.py --data DIR --releases RELEASES --share 0.85

`RELEASES/current` was made of what lies before the moment: `python -m offline replay` makes such a release, and plays
the same stream without HTTP. Starts the service on it with the embedded store. New items are put before their first
event. The next request waits until an event counts for everybody. The service gathers active users by the clock, every
`ISRF_CROWD_EPOCH_S` seconds, and not in the stream's own time. Events of visitors without an account are left out:
POST /interactions takes events of users. Prints the machine, NDCG@10 by kind of request,
and one JSON line.
"""

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from machine import machine
from request_latency import running_service
from rich.console import Console

from isrf.contract.errors import IsrfError
from isrf.runtime.bundle.manifests import read_manifest
from offline.commands.replay.cut import Cut, ReplayEvent, cut, moment_text, read_moment
from offline.commands.replay.figures import Measured, as_table, describe
from offline.commands.replay.player import LIST_LENGTH, Player
from offline.commands.replay.run import made_before
from offline.commands.replay.shop import open_shop
from offline.commands.replay.steps import Asked
from offline.config import RunConfig

REPORT_S = 30.0
POLL_S = 0.002
"""How often the service looks for accepted events, and this program for what has been counted."""


class Backend:
    """A shop's backend: one connection to the service, and the new items that it has not put yet."""

    def __init__(self, port: int, new_items: dict[str, dict[str, Any]]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._not_put = dict(new_items)
        self._num_sent = 0

    def rank(self, event: ReplayEvent) -> int:
        """The place of the event's item in the user's list, from 0; −1 where the list lacks it."""
        answer = self._call("GET", f"/recommend/{quote(event.user_id, safe='')}?n={LIST_LENGTH}")
        items = [item["item_id"] for item in answer["items"]]
        return items.index(event.item_id) if event.item_id in items else -1

    def put_item(self, item_id: str) -> None:
        """Puts a new item, the first time that it is named."""
        fields = self._not_put.pop(item_id, None)
        if fields is not None:
            body = {name: value for name, value in fields.items() if name != "item_id"}
            self._call("PUT", f"/items/{quote(item_id, safe='')}", body)

    def send(self, event: ReplayEvent) -> None:
        """Sends an event and waits until it counts for everybody; ends the program where it is not accepted."""
        answer = self._call("POST", "/interactions", {"events": [event._asdict()]})
        if answer["accepted"] != 1:
            sys.exit(f"{event} was not accepted: {answer}")
        self._num_sent += 1
        while self._call("GET", "/readyz")["live_evidence"]["entries_read"] < self._num_sent:
            time.sleep(POLL_S)

    def close(self) -> None:
        self._connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            sys.exit(f"{method} {path} was answered {response.status}: {answer}")
        return answer


def answers(stream: Cut, player: Player, backend: Backend) -> Iterator[tuple[Asked, int]]:
    """Every request of the replay and its rank; the player says what is asked, the service answers."""
    asked_events = (asked for stretch in player.stretches() for asked in stretch.asked)
    waiting = next(asked_events, None)
    for event in stream.stream:
        backend.put_item(event.item_id)
        if waiting is not None and waiting.event is event:
            yield waiting, backend.rank(event)
            waiting = next(asked_events, None)
        backend.send(event)


def with_progress(answered: Iterator[tuple[Asked, int]], total: int) -> Iterator[tuple[Asked, int]]:
    """The same, with a line on standard error every `REPORT_S` seconds."""
    began = reported = time.monotonic()
    for count, one in enumerate(answered, start=1):
        yield one
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            print(f"{count} of {total} events, {count / (reported - began):.0f} a second", file=sys.stderr, flush=True)


def replay(data: Path, releases: Path, *, since: float | None, share: float | None) -> dict[str, Any]:
    """Starts the service on `releases`, plays the stream, and returns the figures."""
    release = (releases / "current").resolve()
    config = RunConfig.model_validate(read_manifest(release).config)
    with tempfile.TemporaryDirectory() as scratch:
        stream = cut(data, Path(scratch), config, since=since, share=share)
        of_users = [event for event in stream.stream if not event.of_session]
        num_left_out = len(stream.stream) - len(of_users)
        stream = stream._replace(stream=of_users)
        made_before(release, stream.since)
        player = Player(open_shop(release, config.events), stream, frozen=frozenset({"activity"}), epoch_s=3600.0)
        with (
            running_service(
                releases, state=Path(scratch) / "state", environment={"ISRF_LIVE_POLL_S": str(POLL_S)}
            ) as service,
            contextlib.closing(Backend(service.port, stream.new_items)) as backend,
        ):
            answered = answers(stream, player, backend)
            measured = Measured.of(with_progress(answered, len(stream.stream)))
    figures = describe(measured, since=stream.since, samples=config.evaluate.bootstrap_samples, seed=config.seed)
    return {
        "since": moment_text(stream.since),
        "events": len(stream.stream),
        "events_of_sessions_left_out": num_left_out,
        "figures": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--since")
    parser.add_argument("--share", type=float)
    arguments = parser.parse_args()
    try:
        since = None if arguments.since is None else read_moment(arguments.since)
        result = replay(arguments.data, arguments.releases, since=since, share=arguments.share)
    except IsrfError as error:
        sys.exit(str(error))
    Console(stderr=True).print(as_table({"over HTTP": result["figures"]}))
    print(json.dumps({**machine(), **result}))


if __name__ == "__main__":
    main()
