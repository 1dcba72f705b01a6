"""The images, without an engine: linted, held against the packages, and the service's replayed step by step."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.auth.command import main as keys_command
from tests.docker.dockerfile import Stage, entrypoint, environment, last, read_stages
from tests.service.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NOBODY = 65534


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_finds_nothing(path: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([linter, "--failure-threshold", "info", path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_bases_are_pinned_and_nobody_is_root(path: Path) -> None:
    stages = read_stages(path)
    for stage in stages:
        assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", stage.base), stage.base
    assert last(stages[-1], "USER") == "10001:10001"
    final = " ".join(rest for word, rest in stages[-1].steps if word == "RUN")
    assert not re.search(r"\b(apt-get|gcc|pip)\b", final), "nothing is installed in the last stage"


def test_the_service_image_holds_no_torch() -> None:
    for name in ("requirements-cpu.txt", "requirements-gpu.txt", "locks/service-cpu.txt", "locks/service-gpu.txt"):
        text = (ROOT / "docker" / name).read_text()
        assert not re.search(r"^(torch|transformers|scikit-learn)\b", text, re.MULTILINE)
    copied = " ".join(rest for word, rest in read_stages(ROOT / "docker/service.Dockerfile")[0].steps if word == "COPY")
    assert "offline" not in copied


def needed(name: str) -> set[str]:
    lines = (ROOT / "docker" / f"requirements-{name}.txt").read_text().splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_requirements_are_the_packages_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["otel"], *extras["kafka"], *extras["object-store"]}
    assert needed("cpu") == wanted
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    on_cpu = {one for one in wanted if one.startswith(("onnxruntime", "faiss"))}
    on_gpu = {f"onnxruntime-gpu[cuda,cudnn]=={pins['onnxruntime']}", f"faiss-gpu-cuvs=={pins['faiss-cpu']}"}
    assert needed("gpu") == wanted - on_cpu | on_gpu


def test_the_builder_is_sent_what_is_copied_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    sent = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    copied = set()
    for path in DOCKERFILES:
        for word, rest in read_stages(path)[0].steps:
            if word == "COPY":
                copied |= set(rest.split()[:-1])
    assert copied == sent


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
@pytest.mark.parametrize("argument", [{}, {"REQUIREMENTS": "docker/locks/service-gpu.txt", "TORCH": "gpu"}])
def test_pip_takes_nothing_whose_hash_is_not_known(path: Path, argument: dict[str, str]) -> None:
    build, final = read_stages(path, **argument)
    installs = [
        part for word, rest in build.steps if word == "RUN" for part in rest.split("&&") if re.search(r"pip\b", part)
    ]
    assert len(installs) >= 4
    for command in installs:
        words = shlex.split(command)
        assert "--no-deps" in words
        if "--requirement" in words:
            assert "--require-hashes" in words
            assert (ROOT / words[words.index("--requirement") + 1]).is_file()
        else:
            # Our own wheel, made without asking an index for what makes it.
            assert {"--no-index", "--no-build-isolation"} & set(words), command
    assert not any("pip" in rest for word, rest in final.steps if word == "RUN")


def public_python() -> str:
    """An interpreter that an unprivileged user may run; root's own often lies where nobody else may look."""
    for candidate in (Path(sys.executable).resolve(), Path("/usr/bin/python3").resolve()):
        reachable = all(folder.stat().st_mode & 0o005 == 0o005 for folder in candidate.parents)
        able = [str(candidate), "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
        if (os.getuid() or reachable) and subprocess.run(able, capture_output=True, check=False).returncode == 0:
            return str(candidate)
    pytest.skip("root's Python lies where nobody else may run it, and the system has none with venv")


def replay(stages: list[Stage], root: Path) -> None:
    """The build stage's steps, its absolute paths under `root`."""

    def inside(text: str) -> str:
        return text.replace("/opt/", f"{root}/opt/").replace("/src", f"{root}/src")

    where = root
    variables = os.environ | {
        name: value for name, value in environment(stages[0]).items() if name != "PIP_NO_CACHE_DIR"
    }
    for word, rest in stages[0].steps:
        if word == "WORKDIR":
            where = Path(inside(rest))
            where.mkdir(parents=True)
        elif word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                to = where / target / Path(source).name if target.endswith("/") else where / target
                to.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, to)
        elif word == "RUN":
            command = inside(rest).replace("python -m venv", f"{public_python()} -m venv")
            subprocess.run(command, shell=True, cwd=where, env=variables, check=True)
        else:
            assert word == "ENV", f"{word} cannot be replayed"
    assert any(word == "COPY" and rest == "--from=build /opt/isrf /opt/isrf" for word, rest in stages[-1].steps)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    stages = read_stages(ROOT / "docker/service.Dockerfile")
    replay(stages, tmp_path)
    shutil.rmtree(tmp_path / "src")
    installed = tmp_path / "opt"
    subprocess.run(["chmod", "-R", "a-w,a+rX", installed], check=True)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    yield installed / "isrf"
    subprocess.run(["chmod", "-R", "u+w", installed], check=True)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_service_starts_as_nobody_on_a_read_only_tree(image: Path, demo_release: Path, tmp_path: Path) -> None:
    final = read_stages(ROOT / "docker/service.Dockerfile")[-1]
    names = {path.name.lower() for path in (image / "lib").glob("python3*/site-packages/*")}
    assert {"service", "isrf", "onnxruntime"} <= names
    assert not names & {"torch", "transformers", "offline", "pytest"}
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    releases = tmp_path / "releases"
    shutil.copytree((demo_release / "current").resolve(), releases / "r")
    (releases / "current").symlink_to("r")
    subprocess.run(["chmod", "-R", "a-w,a+rX", releases], check=True)
    keys = home / "keys.json"
    assert keys_command(["add", "--file", str(keys), "--role", "write", "--to", str(home / "shop.key")]) == 0
    as_root = os.getuid() == 0
    if as_root:
        for path in (home, *home.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    port = free_port()
    variables = environment(final) | {
        "PATH": f"{image}/bin:/usr/bin:/bin", "HOME": str(home), "ISRF_BIND_PORT": str(port),
        "ISRF_RELEASES_DIR": str(releases), "ISRF_STATE_DIR": str(home / "state"), "ISRF_API_KEYS_FILE": str(keys),
    }  # fmt: skip
    command = entrypoint(final)
    command[0] = str(image / "bin" / command[0])
    log = tmp_path / "log"
    began = time.time()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=variables,
            stdout=out,
            stderr=out,
            user=NOBODY if as_root else None,
            group=NOBODY if as_root else None,
            extra_groups=[] if as_root else None,
        )
    try:
        check = "import urllib.request as u; r = u.Request('http://127.0.0.1:%d/popular?n=1'); "
        check += "r.add_header('X-API-Key', open('%s').read().strip()); print(u.urlopen(r).status)"
        probe = [command[0], "-c", check % (port, home / "shop.key")]

        def answers() -> bool:
            return subprocess.run(probe, capture_output=True, check=False).stdout.strip() == b"200"

        wait_until(answers, what="the service", timeout_s=120, alive=lambda: process.poll() is None)
        written = [path for path in image.rglob("*") if path.lstat().st_mtime > began]
        assert written == []
        process.terminate()
        assert process.wait(timeout=60) == 0, log.read_text()
    except AssertionError:
        raise AssertionError(log.read_text()) from None
    finally:
        process.kill()
        subprocess.run(["chmod", "-R", "u+w", releases], check=True)
