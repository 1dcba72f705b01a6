"""A compose project of the test's own, run by a real engine: its images, its volumes, its ports, and its end.

Where the engine reaches no image registry, `docker/bases.py` makes the base images from Debian's packages.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docker.dockerfile import read_stages
from tests.service.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
BASES = ("ISRF_PYTHON_IMAGE", "ISRF_REDIS_IMAGE")
TRAINED_S = 3600.0
"""What a training of the demo shop may take on a busy machine; it takes minutes."""


def why_no_engine() -> str:
    """The reason why compose cannot run here; empty if it can."""
    for command in (["docker", "info"], ["docker", "compose", "version"], ["docker", "buildx", "version"]):
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            return "no docker on this machine"
        if ended.returncode:
            said = (ended.stderr or ended.stdout).strip().splitlines()[-1:]
            return f"`{' '.join(command)}` ended with {ended.returncode}: {''.join(said)}"
    return ""


def base_images() -> dict[str, str]:
    """Names of base images by variable: none where the pinned ones can be had, else those of Debian's packages."""
    given = {name: os.environ[name] for name in BASES if os.environ.get(name)}
    if given:
        return given
    pinned = read_stages(ROOT / "docker/service.Dockerfile")[0].base
    if subprocess.run(["docker", "pull", "--quiet", pinned], capture_output=True, check=False).returncode == 0:
        return {}
    if os.getuid() or shutil.which("debootstrap") is None:
        pytest.skip(f"{pinned} cannot be had, and docker/bases.py needs root and debootstrap")
    made = subprocess.run([sys.executable, ROOT / "docker/bases.py"], check=True, stdout=subprocess.PIPE, text=True)
    return dict(line.split("=", 1) for line in made.stdout.splitlines())


def folder_of_wheels() -> Path | None:
    """The first local folder that this machine's pip finds wheels of torch in."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    )
    folders = [Path(one) for one in (os.environ.get("PIP_FIND_LINKS", "") + " " + told.stdout).split()]
    return next((folder for folder in folders if list(folder.glob("torch-*.whl"))), None)


class ComposeProject:
    """`docker-compose.yml` under a name of its own, with images, volumes and a port that nobody else uses."""

    def __init__(self, folder: Path, bases: dict[str, str]) -> None:
        self.folder, self.name = folder, f"isrf-soak-{os.getpid()}"
        self.data = folder / "shop"
        self.data.mkdir()
        self.data.chmod(0o777)  # uid 10001 writes there
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._bases = bases
        self._environment = os.environ | bases | {
            "ISRF_PORT": str(port), "ISRF_DATA": str(self.data), "ISRF_PRESET": "demo",
            "ISRF_RATE_LIMIT": "1000000/minute",
        }  # fmt: skip
        self.mark("first")

    def mark(self, version: str) -> None:
        """Names the images of this test, which need no tag of the user's; another version is another image."""
        wheels = folder_of_wheels()
        contexts = {"additional_contexts": {"wheels": str(wheels)}} if wheels else {}
        label = {"labels": {"org.opencontainers.image.version": version, "isrf.soak": self.name}}
        service = {"image": f"{self.name}-service:soak", "build": label}
        # Torch with more threads than free cores is many times slower.
        offline = {
            "image": f"{self.name}-offline:soak",
            "build": label | contexts,
            "environment": {"OMP_NUM_THREADS": "1"},
        }
        services = {"keys": service, "service": service, "demo": offline, "train": offline}
        (self.folder / "soak.json").write_text(json.dumps({"services": services}))

    def compose(self, *words: str, check: bool = True, timeout_s: float = TRAINED_S) -> str:
        """What `docker compose` prints; it must end well unless `check` is False."""
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(self.folder / "soak.json")]
        command = ["docker", "compose", "--project-name", self.name, *files, *words]
        ended = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert not check or ended.returncode == 0, f"{' '.join(words)}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"
        return ended.stdout

    def build(self) -> None:
        python = self._bases.get("ISRF_PYTHON_IMAGE")
        argument = ["--build-arg", f"PYTHON={python}"] if python else []
        for service in ("service", "keys", "demo", "train"):
            self.compose("build", *argument, service)

    def bring(self, releases: Path) -> None:
        """Copies a folder of releases into the volume, so that nothing is trained."""
        brought = self.folder / "brought"
        shutil.copytree(releases, brought, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", brought], check=True)
        copy = ["--entrypoint", "cp", "demo", "-R", "/brought/.", "releases"]
        self.compose("run", "--rm", "-T", "--no-deps", "--volume", f"{brought}:/brought:ro", *copy)

    def size_mb(self, service: str) -> int:
        image = f"{self.name}-{service}:soak"
        told = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=True)
        return int(json.loads(told.stdout)[0]["Size"]) // 10**6

    def up(self) -> float:
        """Seconds from the command to ready."""
        began = time.monotonic()
        self.compose("up", "--detach", "--no-build")
        self.wait_until_ready()
        return time.monotonic() - began

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.readiness().get("status") == "ready", what="the service", timeout_s=300)

    def readiness(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = httpx.get(f"{self.url}/readyz", timeout=10).json()
        except (httpx.TransportError, ValueError):
            return {}
        return answer

    def key(self) -> str:
        return self.compose("exec", "-T", "service", "cat", "/var/lib/isrf/keys/shop.key").strip()

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows of the service's container."""
        number = self.compose("ps", "--all", "--quiet", service).strip()
        told = subprocess.run(["docker", "inspect", number], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(told.stdout)[0]
        return found

    def kill(self, service: str) -> None:
        """As an operator does: the engine leaves it where it is until `up`."""
        container = self.container(service)["Id"]
        subprocess.run(["docker", "kill", "--signal", "KILL", container], check=True, capture_output=True)

    def crash(self, service: str) -> None:
        """Kills all its processes from inside; the engine starts it again."""
        self.compose("exec", "-T", service, "sh", "-c", "kill -9 -1", check=False)

    def train(self, *words: str) -> str:
        """`docker compose --profile train run --rm train …`"""
        return self.compose("--profile", "train", "run", "--rm", "-T", "train", *words)

    def logs(self, *services: str) -> str:
        return self.compose("logs", "--no-color", *services, check=False)

    def images(self) -> Sequence[str]:
        return [f"{self.name}-{one}:soak" for one in ("service", "offline")]

    def close(self) -> None:
        """Nothing of it stays: containers, networks, volumes, images."""
        self.compose("--profile", "train", "down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
        subprocess.run(["docker", "image", "rm", *self.images()], capture_output=True, check=False)
        # A build for another service, or of another version, took the tag from an image that is still there.
        ours = ["--force", "--filter", f"label=isrf.soak={self.name}"]
        subprocess.run(["docker", "image", "prune", *ours], capture_output=True, check=False)
