"""Five times of what can be answered, for a while: what is answered stays, the rest is refused, and it leaves no trace.

Load and service share the machine: it has to be a quiet one, as for `benchmarks/serve.py`, which this is a part of.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.service.servers import AS_SERVED, ServiceProcess, as_environment

pytestmark = pytest.mark.soak

SECONDS = 20.0


def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["serve"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_five_times_the_saturation(demo_release: Path, tmp_path: Path) -> None:
    serve = benchmark()
    service = ServiceProcess(demo_release, tmp_path, **as_environment(AS_SERVED)).start()
    try:
        load = serve.Load(service.port, (demo_release / "current").resolve())
        load.warm()
        saturation = max(step["ok_per_s"] for step in serve.grow(load, 4.0))
        seen = serve.overload(load, service.process, saturation, SECONDS)
        assert seen["failed"] == 0, seen
        assert seen["refused"] > 0, seen
        assert seen["goodput_share"] >= 0.8, seen
        assert seen["memory_growth"] < 0.1, seen
        assert seen["p99_after_ms"] < 3 * seen["p99_before_ms"] + 50, seen
    finally:
        service.kill()
