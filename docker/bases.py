"""Makes base images from Debian's packages, for a machine that reaches no image registry: needs root and debootstrap.

    python docker/bases.py

It prints the two names that the build and compose take in place of the pinned images:

    ISRF_PYTHON_IMAGE=isrf-base-python:bookworm   docker compose build --build-arg PYTHON=$ISRF_PYTHON_IMAGE
    ISRF_REDIS_IMAGE=isrf-base-redis:bookworm     docker compose up

They are for trying things out: Debian's versions of Python and Redis are older than the pinned ones. The images trust
the certificates that this machine trusts, and ask the package index that its pip asks.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SUITE = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Base(NamedTuple):
    """What one base image is made of."""

    variable: str
    name: str
    packages: tuple[str, ...]
    finish: Callable[[Path], None]  # in the tree, before it becomes an image
    changes: tuple[str, ...] = ()


def _finish_python(tree: Path) -> None:
    # The pinned image has `python` at this place.
    (tree / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    if CERTIFICATES.is_file():
        shutil.copyfile(CERTIFICATES, tree / CERTIFICATES.relative_to("/"))
    index = _pip_setting("index-url")
    if index:
        (tree / "etc/pip.conf").write_text(f"[global]\nindex-url = {index}\n", encoding="utf-8")


def _finish_redis(tree: Path) -> None:
    # Compose mounts its configuration here, and its user is none of Debian's: what is mounted must be reachable.
    shutil.rmtree(tree / "etc/redis")
    # The ids of the pinned image, which docker-compose.yml names; they may have other names in Debian.
    data = tree / "data"
    data.mkdir()
    subprocess.run(["chown", "999:1000", data], check=True)


BASES = (
    Base(
        "ISRF_PYTHON_IMAGE",
        f"isrf-base-python:{SUITE}",
        ("python3", "python3-venv", "ca-certificates", "libgomp1"),
        _finish_python,
    ),
    Base(
        "ISRF_REDIS_IMAGE",
        f"isrf-base-redis:{SUITE}",
        ("redis-server",),
        _finish_redis,
        ("VOLUME /data", "WORKDIR /data"),
    ),
)


def _pip_setting(name: str) -> str:
    """What this machine's pip has under `name`; empty if nothing."""
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def make(base: Base) -> None:
    """Makes one image, some hundred MB of Debian's packages."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        packages = f"--include={','.join(base.packages)}"
        subprocess.run(["debootstrap", "--variant=minbase", packages, SUITE, tree], check=True, stdout=sys.stderr)
        for waste in (tree / "var/cache/apt/archives", tree / "var/lib/apt/lists"):
            shutil.rmtree(waste)
        base.finish(tree)
        changes = [word for change in base.changes for word in ("--change", change)]
        with subprocess.Popen(["tar", "--create", "--directory", tree, "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(
                ["docker", "import", *changes, "-", base.name], check=True, stdin=packed.stdout, stdout=sys.stderr
            )
        if packed.returncode:
            sys.exit(f"tar ended with {packed.returncode}")


def main() -> None:
    for base in BASES:
        there = subprocess.run(["docker", "image", "inspect", base.name], capture_output=True, check=False)
        if there.returncode:
            make(base)
        print(f"{base.variable}={base.name}", flush=True)


if __name__ == "__main__":
    main()
