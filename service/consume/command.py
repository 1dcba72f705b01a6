"""The command `python -m service consume`: events from a Kafka topic to a running service.

    ISRF_API_KEY_FILE=shop.key python -m service consume --kafka kafka:9092 --topic events --group isrf \\
        --url http://127.0.0.1:8000

It ends with status 0 after SIGTERM or SIGINT, when its batch is posted and committed, and 2 for a setting that cannot
work, such as a key that the service does not know.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog
from prometheus_client import start_http_server

from isrf.contract.errors import ConfigError
from isrf.runtime.secret_files import secret_in_file
from service.consume.consumer import Consumer, ConsumerMetrics
from service.consume.posting import Poster
from service.telemetry.logs import configure_logs

API_KEY, USERNAME, PASSWORD = "ISRF_API_KEY", "ISRF_KAFKA_USERNAME", "ISRF_KAFKA_PASSWORD"
VARIABLES = (API_KEY, USERNAME, PASSWORD)
"""The environment that it reads; each may be in a file that `…_FILE` names."""
REJOIN_S = 2.0
"""How long to wait before joining the group again after an error of Kafka's client."""
SECURITY = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_log = structlog.get_logger("service")


def main(arguments: Sequence[str]) -> int:
    """Consumes until a signal; returns the exit code."""
    options = consume_parser().parse_args(arguments)
    configure_logs(options.log_level)
    try:
        asyncio.run(_run(options))
    except ConfigError as error:
        print(f"error: {error.code}: {error}", file=sys.stderr)
        return 2
    return 0


def consume_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m service consume", description="Posts the events of a Kafka topic to a running service."
    )
    parser.add_argument("--kafka", required=True, help="addresses of brokers: HOST:PORT,HOST:PORT")
    parser.add_argument("--topic", required=True, help="topic of events, JSON as POST /interactions takes them")
    parser.add_argument("--group", required=True, help="consumer group; its members share the partitions")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service; its key is in ISRF_API_KEY")
    parser.add_argument("--dead-letter", metavar="TOPIC", help="topic for messages that the service refuses for good")
    parser.add_argument(
        "--start-at", choices=("earliest", "latest"), default="earliest", help="where a new group begins"
    )
    parser.add_argument(
        "--security", choices=SECURITY, default="PLAINTEXT", help="SASL takes ISRF_KAFKA_USERNAME and _PASSWORD"
    )
    parser.add_argument("--sasl-mechanism", choices=MECHANISMS, default="PLAIN", help="how the password is sent")
    parser.add_argument("--ca-file", help="certificate authorities of the brokers; the system's if missing")
    parser.add_argument("--metrics-port", type=int, default=0, help="port for /metrics on loopback; 0 for none")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="in the log")
    return parser


async def _run(options: argparse.Namespace) -> None:
    try:
        # The extra is needed here alone.
        from service.consume.kafka import BrokerError, KafkaBroker, KafkaOptions
    except ImportError as error:
        raise ConfigError(
            "config.no_kafka",
            f"the package for Kafka is not installed ({error.name}).",
            fix="Install the extra: pip install '.[kafka]'.",
        ) from None
    poster = Poster(options.url, _secret(API_KEY))
    kafka = KafkaOptions(
        options.kafka,
        options.topic,
        options.group,
        start_at=options.start_at,
        dead_letter=options.dead_letter,
        security=options.security,
        mechanism=options.sasl_mechanism,
        ca_file=options.ca_file,
        username=_secret(USERNAME),
        password=_secret(PASSWORD),
    )
    metrics, stop = ConsumerMetrics(), asyncio.Event()
    if options.metrics_port:
        _serve_metrics(options.metrics_port, metrics)
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    while not stop.is_set():
        try:
            async with KafkaBroker(kafka) as broker:
                _log.info("consuming", topic=kafka.topic, group=kafka.group)
                await Consumer(broker, poster.post, metrics, stop).run()
        except BrokerError as error:
            # What was not committed is read again.
            _log.warning("kafka_away", reason=type(error).__name__)
            try:
                async with asyncio.timeout(REJOIN_S):
                    await stop.wait()
            except TimeoutError:
                continue
    _log.info("consumed")


def _serve_metrics(port: int, metrics: ConsumerMetrics) -> None:
    try:
        start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "config.consume_metrics_port",
            f"the port {port} of --metrics-port cannot be used ({type(error).__name__}).",
            fix="Name a free port, or 0 for no metrics.",
        ) from None


def _secret(variable: str) -> str | None:
    return secret_in_file(variable) or os.environ.get(variable) or None
