"""Connects to a Ray cluster, or starts one on this machine for as long as a command runs.

What Ray says of an address that does not answer comes after minutes, so the address is tried first. It knows nothing of
pieces of work.
"""

import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import isrf
from isrf.contract.errors import ConfigError, StageError
from isrf.runtime.cpus import available_cpus

ANSWER_S = 5.0
"""How long a cluster may take to answer at its address."""
WORKER_S = 120.0
"""How long a node may take to start a process and import the code."""
CLIENT_SCHEME = "ray://"
ADDRESS_ENV = "RAY_ADDRESS"


def import_ray() -> Any:
    """The package; `ConfigError` (`config.no_ray`) where it is not installed."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns that this will be its default
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of a cluster of our own: its workers do what this process would do, and by default give way to everything else.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "config.no_ray",
            f"--engine ray needs the package ray, which cannot be imported: {error}.",
            fix="Install it with `pip install 'isrf[offline,ray]'`, or use --engine local.",
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yields the package `ray`, connected; a cluster that this process already uses stays as it is.

    Args:
        address: `host:port` of a cluster that has a node on this machine, `ray://host:port` of any cluster, or `auto`;
            None takes RAY_ADDRESS, and without it starts a cluster of this machine's CPUs, which ends with the context.

    Raises:
        ConfigError: `config.no_ray`, `config.ray_address`.
        StageError: `engine.unreachable`, nothing answers at the address; `engine.other_code`.
    """
    ray = import_ray()
    if address is None and ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get(ADDRESS_ENV) or None
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(address="local", num_cpus=available_cpus(), include_dashboard=False, **quiet)
    else:
        _try(address)
        # Ray would end this process 60 s after the head's; `answers` finds out, and says what to do.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "86400")
        try:
            ray.init(address=address, **({} if address.startswith(CLIENT_SCHEME) else quiet))
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
            raise _unreachable(address, str(error).strip().split("\n")[0]) from error
    try:
        if address is not None:
            _check_nodes(ray, address)
        with contextlib.redirect_stdout(sys.stderr):  # where Ray's messages belong; a command prints its results later
            yield ray
    finally:
        with contextlib.suppress(Exception):  # a cluster that is gone cannot be left
            ray.shutdown()


def _try(address: str) -> None:
    """Raises where nobody answers at the address as a Ray cluster does."""
    if address == "auto":
        return
    host, _, port = address.removeprefix(CLIENT_SCHEME).partition("?")[0].rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            "config.ray_address",
            f"{address!r} is no address of a Ray cluster.",
            fix="Write --ray-address HOST:6379, ray://HOST:10001 or auto.",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
            pass
    except OSError as error:
        raise _unreachable(address, str(error)) from error
    if os.environ.get("RAY_USE_TLS", "0") == "1":  # its certificates are Ray's to read
        return
    import grpc

    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        except grpc.FutureTimeoutError:
            raise _unreachable(address, f"it takes connections, but does not answer within {ANSWER_S:g} s") from None


def answers(address: str) -> bool:
    """Whether something takes connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
            return True
    except OSError:
        return False


def _unreachable(address: str, reason: str) -> StageError:
    return StageError(
        "engine.unreachable",
        f"no Ray cluster answers at {address}: {reason}.",
        fix="Check --ray-address (or RAY_ADDRESS), that the cluster runs, and that its version of Ray and Python is "
        "this machine's.",
    )


def _check_nodes(ray: Any, address: str) -> None:
    """Raises where a node's code is not ours, which would compute something else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check = ray.remote(code_digest)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = {
        node["NodeManagerAddress"]: check.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        for node in nodes
    }
    own = code_digest()
    for place, answer in asked.items():
        try:
            found = ray.get(answer, timeout=WORKER_S)
        except ray.exceptions.GetTimeoutError:
            raise _unreachable(address, f"its node {place} starts no process within {WORKER_S:g} s") from None
        except ray.exceptions.RayError as error:
            raise _other_code(place, f"cannot import it: {str(error).strip().splitlines()[-1]}") from error
        if found != own:
            raise _other_code(place, f"has other code than this machine's {isrf.__version__}")


def _other_code(place: str, reason: str) -> StageError:
    return StageError(
        "engine.other_code",
        f"the Ray node {place} {reason}.",
        fix="Start all nodes from the image that this command runs in, or send the code along: `ray job submit "
        "--working-dir .` (docs/guides/ray.md).",
    )


def code_digest() -> str:
    """A hash of the Python code of `isrf` and `offline`, wherever it lies."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for folder in (root, Path(isrf.__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
