"""Settings that cannot work end the consumer with a code; a wrong password is told from a broker that is away."""

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

import pytest

from isrf.contract.errors import ConfigError
from tests.service.servers import PATIENCE_S

pytest.importorskip("aiokafka", reason="the extra kafka is not installed")

from aiokafka.errors import KafkaConnectionError

from service.consume.command import main
from service.consume.kafka import KafkaBroker, KafkaOptions

GOOD = KafkaOptions("127.0.0.1:9092", "clicks", "isrf")
LOGIN = GOOD._replace(security="SASL_PLAINTEXT", username="isrf", password="secret")
VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
"""Kafka's numbers of requests."""
WRONG_PASSWORD = 58
"""Kafka's number of the error SASL_AUTHENTICATION_FAILED."""


class DoorKeeper:
    """A broker as far as the login, https://kafka.apache.org/protocol: it says that every password is wrong."""

    def __init__(self) -> None:
        self.logins = 0
        self.visits: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(length)
                kind, version, correlation_id = struct.unpack(">hhi", request[:8])
                answer = struct.pack(">i", correlation_id) + self.answer(kind, version)
                writer.write(struct.pack(">i", len(answer)) + answer)
        writer.close()

    def answer(self, kind: int, version: int) -> bytes:
        if kind == VERSIONS:
            assert version == 0
            known = (VERSIONS, 0, 0, HANDSHAKE, 0, 1, AUTHENTICATE, 0, 0)
            return struct.pack(">hi9h", 0, 3, *known)
        if kind == HANDSHAKE:
            return struct.pack(">hih5s", 0, 1, 5, b"PLAIN")
        assert kind == AUTHENTICATE
        self.logins += 1
        return struct.pack(">hhi", WRONG_PASSWORD, -1, 0)


def code_of(options: KafkaOptions) -> str:
    with pytest.raises(ConfigError) as refused:
        options.connection()
    assert refused.value.fix
    return refused.value.code


def test_options_that_cannot_work_have_a_code(tmp_path: Path) -> None:
    assert code_of(GOOD._replace(topic="a b")) == "config.kafka_topic"
    assert code_of(GOOD._replace(dead_letter="")) == "config.kafka_topic"
    assert code_of(GOOD._replace(dead_letter="clicks")) == "config.kafka_topic"
    for servers in ("", "kafka:abc", "kafka:99999", "a:1,", "[::1"):
        assert code_of(GOOD._replace(servers=servers)) == "config.kafka_servers"
    for lacking in ({"username": None}, {"password": None}, {"password": ""}):
        assert code_of(LOGIN._replace(mechanism="SCRAM-SHA-256", **lacking)) == "config.kafka_login"
    empty = tmp_path / "empty.pem"
    empty.touch()
    for name in ("/nope", str(tmp_path), str(empty)):
        assert code_of(GOOD._replace(security="SSL", ca_file=name)) == "config.kafka_ca_file"
    for options in (GOOD, LOGIN, GOOD._replace(servers="[::1]:9092,kafka", dead_letter="dead")):
        assert options.connection()["security_protocol"] == options.security


def test_the_command_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--kafka", "127.0.0.1:9", "--topic", "clicks", "--group", "isrf"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more, code in (
            (["--url", "http://a:abc"], "config.consume_url"),
            (["--security", "SSL", "--ca-file", "/nope"], "config.kafka_ca_file"),
            (["--metrics-port", port], "config.consume_metrics_port"),
            (["--metrics-port", "99999"], "config.consume_metrics_port"),
        ):
            assert main([*command, *more]) == 2
            assert f"error: {code}: " in capsys.readouterr().err


async def test_a_wrong_password_is_no_broker_that_is_away() -> None:
    keeper = DoorKeeper()
    async with await asyncio.start_server(keeper.serve, "127.0.0.1", 0) as server, asyncio.timeout(PATIENCE_S):
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigError) as refused:
            await KafkaBroker(LOGIN._replace(servers=f"127.0.0.1:{port}")).__aenter__()
        await asyncio.gather(*(visit for visit in keeper.visits if visit is not None))
    assert refused.value.code == "config.kafka_refused"
    assert "SaslAuthenticationFailed" in str(refused.value)
    assert keeper.logins == 2


async def test_a_broker_that_is_away_may_come_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(KafkaConnectionError):
        await KafkaBroker(LOGIN._replace(servers=f"127.0.0.1:{port}")).__aenter__()
