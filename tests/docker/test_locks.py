"""What the images install: every package pinned and hashed, as constraints.txt and pyproject.toml have it."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = {path.stem: path for path in sorted((ROOT / "docker" / "locks").glob("*.txt"))}
EVERY = pytest.mark.parametrize("name", LOCKS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TORCH = canonicalize_name("torch")
STALE = "run `make locks`"


class Locked(NamedTuple):
    pin: Requirement
    hashes: list[str]
    because: set[NormalizedName]  # files and packages that ask for it


def read_lock(path: Path) -> dict[NormalizedName, Locked]:
    text = re.sub(r"\\\n", " ", path.read_text())
    found = {}
    for entry in re.finditer(r"^([a-z0-9].*)\n((?: +#.*\n)*)", text, re.MULTILINE):
        pin, *hashes = re.split(r"\s+--hash=", entry[1].strip())
        because = re.sub(r"#|\bvia\b", " ", entry[2]).strip()
        requirement = Requirement(pin)
        asked_by = {canonicalize_name(one.strip()) for one in because.splitlines() if one.strip()}
        found[canonicalize_name(requirement.name)] = Locked(requirement, hashes, asked_by)
    return found


def version(locked: Locked) -> str:
    (specifier,) = locked.pin.specifier
    assert specifier.operator == "=="
    return specifier.version


def pinned() -> dict[NormalizedName, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines if "==" in line)}


@EVERY
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    lock = read_lock(LOCKS[name])
    assert lock
    for package, locked in lock.items():
        version(locked)
        assert locked.hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in locked.hashes), package


@EVERY
def test_versions_are_those_that_the_tests_ran_with(name: str) -> None:
    pins = pinned()
    for package, locked in read_lock(LOCKS[name]).items():
        if package in pins:
            assert version(locked).split("+")[0] == pins[package], f"{package}: {STALE}"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("service-cpu", (ROOT / "docker/requirements-cpu.txt").read_text().splitlines()),
        ("service-gpu", (ROOT / "docker/requirements-gpu.txt").read_text().splitlines()),
        ("build", PROJECT["build-system"]["requires"]),
        (
            "offline",
            [
                *PROJECT["project"]["dependencies"],
                *PROJECT["project"]["optional-dependencies"]["offline"],
                *PROJECT["project"]["optional-dependencies"]["object-store"],
            ],
        ),
    ],
)
def test_what_is_required_is_locked_and_nothing_else(name: str, wanted: list[str]) -> None:
    lock = read_lock(LOCKS[name])
    elsewhere = read_lock(LOCKS["torch-cpu"]) if name == "offline" else {}
    requirements = [Requirement(line) for line in wanted if line and not line.startswith("#")]
    for requirement in requirements:
        package = canonicalize_name(requirement.name)
        found = lock.get(package) or elsewhere[package]
        assert Version(version(found)) in requirement.specifier, f"{requirement}: {STALE}"
    asked = {canonicalize_name(requirement.name) for requirement in requirements}
    for locked_name, locked in lock.items():
        others = {one for one in locked.because if one in lock or one == TORCH}
        assert locked_name in asked or others, f"nobody asks for {locked_name}: {STALE}"


def test_locks_that_are_installed_together_agree() -> None:
    for one, other in (("offline", "torch-gpu"), ("offline", "torch-cpu")):
        both = read_lock(LOCKS[one]), read_lock(LOCKS[other])
        for package in set(both[0]) & set(both[1]):
            assert version(both[0][package]) == version(both[1][package]), f"{package}: {STALE}"
    needs = set(read_lock(LOCKS["torch-gpu"])) - {TORCH} - set(read_lock(LOCKS["offline"]))
    # What the CPU's torch does not need.
    assert all(re.match(r"nvidia-|cuda-|triton$", package) for package in needs), needs
    assert version(read_lock(LOCKS["torch-cpu"])[TORCH]) == f"{pinned()[TORCH]}+cpu"


def test_hosted_ci_runs_the_tests_and_the_audit() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert {"make test", "make audit"} <= {step.get("run") for step in steps}
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), "an action is pinned by its commit"
    assert (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1] == "make test"
