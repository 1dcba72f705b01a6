"""Opens the engine that a command line names."""

import contextlib
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

from isrf.contract.errors import ConfigError
from offline.engine.engine import StageEngine
from offline.engine.local import LOCAL

OpenedEngine: TypeAlias = contextlib.AbstractContextManager[StageEngine]
"""What `open_engine` gives."""
EngineName = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@contextlib.contextmanager
def open_engine(name: str = "local", address: str | None = None) -> Iterator[StageEngine]:
    """Yields the engine; a cluster that it started ends with the context.

    Args:
        name: one of `ENGINES`.
        address: of a Ray cluster, as `offline.engine.cluster.connected`.

    Raises:
        ConfigError: `config.engine`; as `offline.engine.cluster.connected`.
        StageError: as `offline.engine.cluster.connected`.
    """
    if name not in ENGINES:
        raise ConfigError("config.engine", f"{name!r} is no engine.", fix=f"Use one of {', '.join(ENGINES)}.")
    if name == "local":
        if address is not None:
            raise ConfigError(
                "config.ray_address", f"--ray-address is {address!r}, and --engine is local.", fix="Add --engine ray."
            )
        yield LOCAL
        return
    from offline.engine.cluster import connected
    from offline.engine.on_ray import RayEngine

    with connected(address) as ray:
        yield RayEngine(ray)
