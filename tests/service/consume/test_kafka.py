"""From a topic into the state of a real service, each event once: over librdkafka's broker for tests, on loopback.

That broker speaks Kafka's protocol and is no Kafka: everything is in memory, and it has no second member in a group of
aiokafka's. With ISRF_TEST_KAFKA=HOST:PORT the tests run on a real one, in topics of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.consume.messages import KafkaMessage
from tests.service.auth.test_doors import Guarded
from tests.service.servers import PATIENCE_S, wait_until

confluent_kafka = pytest.importorskip("confluent_kafka", reason="the dev extra's broker for tests is not installed")
pytest.importorskip("confluent_kafka.admin")
pytest.importorskip("aiokafka", reason="the extra kafka is not installed")

from service.consume.kafka import KafkaBroker, KafkaOptions  # noqa: E402 - where it is installed

REAL = os.environ.get("ISRF_TEST_KAFKA")
PARTITIONS = 4


class TestBroker:
    """A broker that lives as long as its producer, with topics of a test; or topics in a real one."""

    __test__ = False

    def __init__(self) -> None:
        name = uuid.uuid4().hex
        self.topic, self.dead_topic, self.group = f"clicks-{name}", f"dead-{name}", f"isrf-{name}"
        options = {"test.mock.num.brokers": 1} if REAL is None else {}
        self._producer = confluent_kafka.Producer({"bootstrap.servers": REAL or "none:1"} | options)
        (broker,) = self._producer.list_topics(timeout=PATIENCE_S).brokers.values()
        self.address = REAL or f"{broker.host}:{broker.port}"
        for topic in (self.topic, self.dead_topic):
            if REAL is not None:
                new = confluent_kafka.admin.NewTopic(topic, PARTITIONS, 1)
                admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": REAL})
                admin.create_topics([new])[topic].result()
            self._producer.list_topics(topic, timeout=PATIENCE_S)

    def send(self, *values: Any, partition: int = 0) -> None:
        for value in values:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self._producer.produce(self.topic, content, key=b"k", partition=partition)
        assert self._producer.flush(PATIENCE_S) == 0

    def committed(self, partition: int = 0, *, group: str | None = None) -> int:
        """The next offset of a group; negative before its first commit."""
        reader = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": group or self.group})
        try:
            place = confluent_kafka.TopicPartition(self.topic, partition)
            return int(reader.committed([place], timeout=PATIENCE_S)[0].offset)
        finally:
            reader.close()

    def dead(self, count: int) -> list[Any]:
        options = {
            "bootstrap.servers": self.address,
            "group.id": f"graves-{self.group}",
            "auto.offset.reset": "earliest",
        }
        reader = confluent_kafka.Consumer(options)
        found: list[Any] = []
        try:
            reader.assign([confluent_kafka.TopicPartition(self.dead_topic, number, 0) for number in range(PARTITIONS)])
            end = time.monotonic() + PATIENCE_S
            while len(found) < count and time.monotonic() < end:
                message = reader.poll(1.0)
                if message is not None and message.error() is None:
                    found.append(message)
        finally:
            reader.close()
        return found


class Consuming:
    """`python -m service consume` as a process."""

    def __init__(
        self, broker: TestBroker, service: Guarded, log: Path, *, group: str | None = None, **environment: str
    ) -> None:
        self._log = log
        command = [sys.executable, "-m", "service", "consume", "--kafka", broker.address, "--topic", broker.topic]
        command += ["--group", group or broker.group, "--url", service.url, "--dead-letter", broker.dead_topic]
        key = {"ISRF_API_KEY": service.keys["write"]}
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, env=os.environ | key | environment, stdout=file, stderr=file)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def service(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    process = Guarded(tiny_release, tmp_path_factory.mktemp("kafka"))
    yield process.start()
    process.kill()


@pytest.fixture(scope="module")
def items(service: Guarded) -> list[str]:
    answer = service.call("GET", "/popular?n=5", service.keys["read"])
    return [one["item_id"] for one in answer.json()["items"]]


@pytest.fixture
def broker() -> TestBroker:
    return TestBroker()


def history(service: Guarded, user_id: str) -> list[str]:
    found: list[str] = service.call("GET", f"/users/{user_id}", service.keys["read"]).json()["history"]
    return found


def view(user_id: str, item_id: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": item_id, "event": "view", **more}


def test_each_event_counts_once_however_often_it_is_read(
    broker: TestBroker, service: Guarded, items: list[str], tmp_path: Path
) -> None:
    broker.send(view("kay", items[0]), b"{", view("kay", "gone"), view("kay", items[1]))
    consuming = Consuming(broker, service, tmp_path / "log")
    try:
        wait_until(lambda: broker.committed() == 4, what="the commit", alive=lambda: consuming.process.poll() is None)
        assert history(service, "kay") == items[:2]
        assert {dict(one.headers())["isrf-reason"] for one in broker.dead(2)} == {b"malformed_json", b"unknown_item"}
    finally:
        assert consuming.stop() == 0
    assert "gone" not in consuming.log
    again = Consuming(broker, service, tmp_path / "again", group=f"{broker.group}-again")
    try:
        wait_until(lambda: broker.committed(group=f"{broker.group}-again") == 4, what="the second reading")
    finally:
        assert again.stop() == 0
    assert history(service, "kay") == items[:2]


async def test_what_is_too_large_for_the_dead_letter_topic_is_named_there(broker: TestBroker) -> None:
    options = KafkaOptions(broker.address, broker.topic, broker.group, dead_letter=broker.dead_topic)
    large = KafkaMessage(broker.topic, 2, 7, 0, b"k", b"x" * 2_000_000)
    async with KafkaBroker(options) as member:
        await member.bury(large, "too_large")
        await member.bury(large._replace(value=b"small"), "malformed_json")
    found = {dict(one.headers())["isrf-reason"]: (one.key(), one.value()) for one in broker.dead(2)}
    assert found == {b"too_large": (None, b""), b"malformed_json": (b"k", b"small")}


def test_a_key_that_the_service_does_not_know_ends_it_with_nothing_done(
    broker: TestBroker, service: Guarded, items: list[str], tmp_path: Path
) -> None:
    broker.send(view("max", items[0]))
    consuming = Consuming(broker, service, tmp_path / "log", ISRF_API_KEY="wrong")
    assert consuming.process.wait(timeout=PATIENCE_S) == 2
    assert "config.consume_refused" in consuming.log
    assert broker.committed() < 0


@pytest.mark.skipif(REAL is None, reason="needs a real broker: ISRF_TEST_KAFKA")
def test_two_members_share_the_partitions_and_each_event_counts_once(
    broker: TestBroker, service: Guarded, items: list[str], tmp_path: Path
) -> None:
    first = Consuming(broker, service, tmp_path / "first")
    members = [first]
    try:
        broker.send(*(view("pat", item) for item in items))
        wait_until(lambda: broker.committed() == 5, what="the first member's commit")
        members.append(Consuming(broker, service, tmp_path / "second"))
        wait_until(lambda: '"consuming"' in members[1].log, what="the second member")
        for partition in range(4):
            broker.send(*(view(f"user-{partition}", item) for item in items), partition=partition)
        wanted = {0: 10, 1: 5, 2: 5, 3: 5}
        wait_until(lambda: all(broker.committed(place) == end for place, end in wanted.items()), what="all commits")
        assert all(history(service, f"user-{partition}") == items for partition in range(4))
    finally:
        assert [member.stop() for member in members] == [0] * len(members)


def test_a_service_that_is_away_loses_nothing(
    broker: TestBroker, service: Guarded, items: list[str], tmp_path: Path
) -> None:
    consuming = Consuming(broker, service, tmp_path / "log")
    try:
        broker.send(view("lee", items[0]))
        wait_until(lambda: broker.committed() == 1, what="the first commit")
        service.kill()
        broker.send(view("lee", items[1]))
        wait_until(lambda: "service_away" in consuming.log, what="the wait")
        assert broker.committed() == 1
        service.start()
        wait_until(lambda: broker.committed() == 2, what="the second commit")
        assert history(service, "lee") == items[:2]
    finally:
        assert consuming.stop() == 0
