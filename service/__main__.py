"""Serves: `python -m service --releases DIR [--host H] [--port P] [--workers W]`; each option also by environment.

`python -m service keys …` manages API keys (`service.auth.command`), and `python -m service consume …` reads events
from Kafka (`service.consume.command`).

The exit code is 0 after SIGTERM or SIGINT when all requests are drained, 1 where a second signal interrupts the drain,
2 for an invalid setting, 3 where release or state cannot be opened.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from isrf.contract.errors import BundleError, ConfigError, IsrfError
from isrf.runtime.bundle.manifests import read_manifest
from service.api.pages.demo import PAGE
from service.app import create_app
from service.auth.command import main as keys_command
from service.auth.keys import read_keys
from service.consume.command import main as consume_command
from service.server.gc_tuning import set_apart
from service.server.graceful_shutdown import DrainingWorkers, LoneServer
from service.server.metrics_port import serve_metrics
from service.server.protocol.connection_limit import open_more_files
from service.server.protocol.http_protocol import KEEP_ALIVE_S, HttpProtocol
from service.settings import Settings, load_settings
from service.sync.daemon_threads import exit_code_or_exit
from service.sync.release_source import release_source
from service.telemetry.logs import configure_logs
from service.telemetry.metrics import Metrics

HEALTHCHECK_S = 60
GRACE_S = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until a signal; returns the exit code."""
    command_line = sys.argv[1:] if arguments is None else list(arguments)
    if command_line[:1] == ["keys"]:
        return keys_command(command_line[1:])
    if command_line[:1] == ["consume"]:
        return consume_command(command_line[1:])
    try:
        settings = _settings(command_line)
        if settings.api_keys_file is not None:
            read_keys(settings.api_keys_file)
    except ConfigError as error:
        return _refused(error, 2)
    configure_logs(settings.log_level)
    try:
        # A missing or unreadable release gives one sentence, not a server's traceback.
        _check_release(settings)
    except ConfigError as error:
        return _refused(error, 2)
    except BundleError as error:
        return _refused(error, 3)
    try:
        return _serve(settings)
    except ConfigError as error:
        return _refused(error, 2)


def _check_release(settings: Settings) -> None:
    """Downloads the release to serve where it is in an object store, once for all workers; reads its manifest."""
    source = release_source(settings, Metrics())
    release = source.identify_at_start()
    source.fetch(release, settings.open_deadline_s)
    read_manifest(release.folder)
    source.settle(None, ())


def option_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command that serves."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Serves recommendations from a release.")
    parser.add_argument("--releases", help="folder of releases, or s3://… (ISRF_RELEASES_DIR)")
    parser.add_argument("--host", help="address to bind; loopback only without API keys (ISRF_BIND_HOST)")
    parser.add_argument("--port", help="port to bind (ISRF_BIND_PORT)")
    parser.add_argument("--workers", help="processes; more than one needs REDIS_URL (ISRF_WORKERS)")
    parser.add_argument("--state-dir", type=Path, help="folder of the embedded store (ISRF_STATE_DIR)")
    parser.add_argument("--api-keys-file", type=Path, help="made by `python -m service keys` (ISRF_API_KEYS_FILE)")
    parser.add_argument("--demo", action="store_true", default=None, help="a page to try it on, at /demo (ISRF_DEMO)")
    return parser


def _settings(arguments: Sequence[str] | None) -> Settings:
    options = option_parser().parse_args(arguments)
    return load_settings(
        releases_dir=options.releases,
        bind_host=options.host,
        bind_port=options.port,
        workers=options.workers,
        state_dir=options.state_dir,
        api_keys_file=options.api_keys_file,
        demo=options.demo,
    )


def _serve(settings: Settings) -> int:
    # Workers read their settings from the environment, so that the command line's values must be there.
    os.environ |= {
        "ISRF_RELEASES_DIR": str(settings.releases_dir),
        "ISRF_BIND_HOST": settings.bind_host,
        "ISRF_BIND_PORT": str(settings.bind_port),
        "ISRF_WORKERS": str(settings.workers),
        "ISRF_STATE_DIR": str(settings.state_dir),
        "ISRF_API_KEYS_FILE": "" if settings.api_keys_file is None else str(settings.api_keys_file),
        "ISRF_DEMO": str(settings.demo),
    }
    open_more_files()
    # uvicorn drains on SIGTERM and then raises the signal again: a drained service exits with 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options: dict[str, Any] = {
        "host": settings.bind_host,
        "port": settings.bind_port,
        "workers": settings.workers,
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": GRACE_S,
        "timeout_keep_alive": KEEP_ALIVE_S,
        # A worker that opens a release on a busy machine answers late, and must not be restarted for that.
        "timeout_worker_healthcheck": HEALTHCHECK_S,
    }
    if settings.workers == 1:
        return _serve_alone(settings, options)
    with tempfile.TemporaryDirectory(prefix="isrf-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        _serve_metrics(settings, Metrics())
        config = uvicorn.Config("service.app:from_environment", factory=True, **options)
        listening = config.bind_socket()
        workers = DrainingWorkers(config, sockets=[listening])
        workers.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        return 3
    return 1 if workers.cut_short else 0


def _serve_metrics(settings: Settings, metrics: Metrics) -> None:
    if settings.metrics_port:
        try:
            serve_metrics(metrics, settings.metrics_host, settings.metrics_port)
        except OSError as error:
            where = f"{settings.metrics_host}:{settings.metrics_port}"
            raise ConfigError(
                "config.metrics_port", f"{where} cannot be bound ({error.strerror}).", fix="Set ISRF_METRICS_PORT."
            ) from None


def _serve_alone(settings: Settings, options: dict[str, Any]) -> int:
    app = create_app(settings, opened=set_apart)
    _serve_metrics(settings, app.state.metrics)
    server = LoneServer(uvicorn.Config(app, **options), page=PAGE if settings.demo else "")
    try:
        server.run()
    except KeyboardInterrupt:
        return exit_code_or_exit(1 if server.force_exit else 0)
    except SystemExit as ended:
        if server.force_exit:
            return exit_code_or_exit(1)
        error = getattr(app.state, "start_error", None)
        if error is not None:
            return exit_code_or_exit(_refused(error, 3))
        return exit_code_or_exit(ended.code if isinstance(ended.code, int) else 3)
    return exit_code_or_exit(0)


def _refused(error: IsrfError, code: int) -> int:
    print(f"error: {error.code}: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
