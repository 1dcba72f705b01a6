"""The README's way for the shop's developer - run, call, feed events, train, operate - is walked, command by command.

Servers run in the background on a port of the test's; what trains does so at a size of seconds; make and docker compose
are held against the files they would read.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from service.app import create_app
from service.settings import SECRETS, Settings
from tests.service.servers import PATIENCE_S, free_port, wait_until
from tests.shops import TINY

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
THE_WAY = README[: README.index("## Reasoning with an LLM")]
ADDRESS = "http://127.0.0.1:8000"


def sections() -> list[str]:
    return re.findall(r"^## (.*)$", README, re.MULTILINE)


def examples() -> list[tuple[list[str], Any]]:
    """Each block of commands, and the JSON that the README shows as its answer (None without)."""
    found = []
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```\n(?:```json\n(.*?)^```)?", THE_WAY, re.MULTILINE | re.DOTALL)
    for language, block, answer in blocks:
        run = commands(block) if language == "sh" else [f".venv/bin/python -W error -c {shlex.quote(block)}"]
        found.append((run, json.loads(answer) if answer else None))
    return found


def commands(block: str) -> list[str]:
    """A command per entry: a quoted text or a backslash carries it over lines."""
    whole: list[str] = []
    for line in block.splitlines():
        line = re.sub(r"\s{2,}# .*$", "", line)
        if whole and (whole[-1].endswith("\\") or whole[-1].count("'") % 2):
            whole[-1] += "\n" + line
        else:
            whole.append(line)
    return whole


class Developer:
    """A shop's developer with a terminal in the repository."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.server: subprocess.Popen[bytes] | None = None
        (home / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ISRF_", "REDIS_URL"))
        } | {
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "ISRF_BIND_PORT": str(self.port),
            # On a busy machine a turn may be long in coming.
            "ISRF_DEADLINE_S": "60",
        }

    def do(self, command: str) -> str:
        words = shlex.split(command)
        if words[0] == "make":
            return self.run(f"make --dry-run --directory {ROOT} {words[1]}")
        if words[:2] == ["docker", "compose"]:
            return self.compose(words[2:])
        if words[1:3] == ["-m", "service"] and words[3] != "keys":
            return self.serve(command)
        if words[1:4] == ["-m", "offline", "run"]:
            command += "".join(f" --set {one}" for one in (*TINY, "semantic_ids.codebook_size=16"))
        return self.run(command.replace(ADDRESS, f"http://127.0.0.1:{self.port}"))

    def run(self, command: str) -> str:
        ended = subprocess.run(
            ["bash", "-c", command], cwd=self.home, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        return ended.stdout

    def serve(self, command: str) -> str:
        self.stop()
        log = self.home / "log"
        with log.open("ab") as out:
            started = subprocess.Popen(
                shlex.split(command), cwd=self.home, env=self.environment, stdout=out, stderr=out
            )
        self.server = started
        wait_until(self.is_ready, what=command, timeout_s=PATIENCE_S, alive=lambda: started.poll() is None)
        return ""

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.server is not None:
            self.server.terminate()
            assert self.server.wait(timeout=PATIENCE_S) == 0
            self.server = None

    def compose(self, words: list[str]) -> str:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        profiles = {name for one in services.values() for name in one.get("profiles", ())}
        while words[0] == "--profile":
            assert words[1] in profiles
            words = words[2:]
        assert words[0] in {"up", "exec", "run"}
        if words[0] == "exec":
            mounted = [volume.split(":")[1] for volume in services[words[1]]["volumes"]]
            assert str(Path(words[-1]).parent) in mounted
            (script,) = services["keys"]["command"]
            assert f"--to {Path(words[-1]).relative_to(_workdir('service'))}" in script
        return ""


def _workdir(image: str) -> str:
    """Where the commands of an image run."""
    (folder,) = re.findall(r"^WORKDIR (\S+)$", (ROOT / f"docker/{image}.Dockerfile").read_text(), re.MULTILINE)[-1:]
    return str(folder)


@pytest.fixture
def developer(demo_shop: Path, demo_release: Path, tmp_path: Path) -> Iterator[Developer]:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(demo_shop, tmp_path / "shop")
    one = Developer(tmp_path)
    one.serve(f"{sys.executable} -m service --releases {demo_release} --state-dir {tmp_path / 'demo-state'}")
    yield one
    if one.server is not None:
        one.server.kill()
        one.server.wait()


def form(answer: Any) -> Any:
    """The keys of an answer, of its meta and of its first item."""
    return sorted(answer), sorted(answer["meta"]), sorted(answer["items"][0])


@pytest.mark.timeout(900)  # a whole shop is trained on the way, small as it is
def test_every_example_works(developer: Developer) -> None:
    done = []
    for block, answer in examples():
        for command in block:
            said = developer.do(command)
            done.append(command.split()[0])
            if " -c " in command:
                assert said == "", "the example went on without the service"
            if said.startswith("{"):
                told = json.loads(said)
                assert told.get("refused", 0) == 0, (command, told)
                assert told.get("warnings", []) == [], (command, told)
        if answer is not None:
            assert form(json.loads(said)) == form(answer)
    developer.stop()
    assert {"make", "curl", "docker", ".venv/bin/python"} == set(done)
    assert len(done) > 18


def test_the_way_is_in_order() -> None:
    way = ["Run", "Call", "Feed events", "Train on your own data", "Operate"]
    assert [name for name in sections() if name in way] == way


def test_every_call_of_the_table_exists() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    named = re.findall(r"`(GET|POST|PUT|DELETE) (/[\w/{}]*)", README)
    assert len(named) >= 6
    for method, path in named:
        assert method.lower() in paths[path], (method, path)


def test_every_setting_that_is_named_exists() -> None:
    known = {f"ISRF_{name}".upper() for name in Settings.model_fields} | {f"{name}_FILE" for name in SECRETS}
    of_compose = set(re.findall(r"\$\{(ISRF_[A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    for text in (README, (ROOT / "ARCHITECTURE.md").read_text()):
        assert set(re.findall(r"\bISRF_[A-Z_]+\b", text)) <= known | of_compose
