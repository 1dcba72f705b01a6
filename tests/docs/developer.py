"""A shop's developer who walks a page: its examples in order, each run against a service of the page's own.

Servers run in the background on a port of the test's; what trains does so at a size of seconds; make and docker compose
are held against the files they would read. `<!-- not run: REASON -->` before a block leaves it out.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.service.servers import PATIENCE_S, free_port, wait_until
from tests.shops import TINY

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
SWALLOWED = "an error of the client was swallowed"
_BLOCK = re.compile(
    r"(?P<mark><!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>sh|python)\n(?P<text>.*?)^```\n"
    r"(?:```json\n(?P<answer>.*?)^```)?",
    re.MULTILINE | re.DOTALL,
)
_PRELUDE = f"""
import sys
import isrf_client
_begin = isrf_client.ClientError.__init__
def _told(self, *given, **named):
    print({SWALLOWED!r}, file=sys.stderr)
    _begin(self, *given, **named)
isrf_client.ClientError.__init__ = _told
"""
"""An example that goes on without the service would pass otherwise."""


class Example(NamedTuple):
    """A block of a page.

    Attributes:
        commands: of a shell, one after the other.
        answer: the JSON that the page shows below; None without.
        not_run: why it is left out; "" where it is run.
    """

    commands: list[str]
    answer: Any
    not_run: str


def examples(page: str) -> list[Example]:
    """Every block of a page that could be run."""
    found = []
    for block in _BLOCK.finditer(page):
        text = block["text"]
        run = commands(text) if block["language"] == "sh" else [_python(text)]
        answer = json.loads(block["answer"]) if block["answer"] and not block["reason"] else None
        found.append(Example(run, answer, block["reason"] or ""))
    return found


def _python(text: str) -> str:
    return f".venv/bin/python -W error -c {shlex.quote(_PRELUDE + text)}"


def commands(block: str) -> list[str]:
    """A command per entry: a quoted text or a backslash carries it over lines."""
    whole: list[str] = []
    for line in block.splitlines():
        if whole and (whole[-1].endswith("\\") or whole[-1].count("'") % 2):
            whole[-1] += "\n" + line
            if whole[-1].count("'") % 2 == 0:
                whole[-1] = _without_comment(whole[-1])
        elif line.strip() and not line.startswith("#"):
            whole.append(_without_comment(line))
    return whole


def _without_comment(line: str) -> str:
    return re.sub(r"\s{2,}# .*$", "", line)


ASSIGNMENT = re.compile(r"[A-Z_]+=")
"""A variable that a command is given in front of it."""


class Developer:
    """A shop's developer with a terminal in the repository: data in `shop`, the demo release in `releases`."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.server: subprocess.Popen[bytes] | None = None
        (home / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ISRF_", "REDIS_URL"))
        } | {
            "HOME": str(home),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}",
            "ISRF_BIND_PORT": str(self.port),
            # A busy machine may keep a request waiting.
            "ISRF_DEADLINE_S": "60",
        }

    def do(self, command: str) -> str:
        """What a command prints on standard output."""
        words = shlex.split(command.replace("\\\n", " "))
        first = next(at for at, word in enumerate(words) if not ASSIGNMENT.match(word))
        assigned, words = dict(word.split("=", 1) for word in words[:first]), words[first:]
        if words[0] == "make":
            return self.run(f"make --dry-run --directory {ROOT} {words[1]}")
        if words[:2] == ["docker", "compose"]:
            return self.compose(words[2:])
        if words[1:3] == ["-m", "service"] and words[3] != "keys":
            return self.serve(words, **assigned)
        if words[1:4] == ["-m", "offline", "run"]:
            command += "".join(f" --set {one}" for one in (*TINY, "semantic_ids.codebook_size=16"))
        return self.run(command.replace(ADDRESS, f"http://127.0.0.1:{self.port}"))

    def run(self, command: str) -> str:
        ended = subprocess.run(
            ["bash", "-c", command], cwd=self.home, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        assert SWALLOWED not in ended.stderr, (command, ended.stderr)
        return ended.stdout

    def serve(self, words: list[str], **assigned: str) -> str:
        self.stop()
        log = self.home / "log"
        with log.open("ab") as out:
            environment = self.environment | assigned
            self.server = subprocess.Popen(words, cwd=self.home, env=environment, stdout=out, stderr=out)
        try:
            wait_until(
                self.is_ready,
                what=" ".join(words),
                timeout_s=PATIENCE_S,
                alive=lambda: self.server is not None and self.server.poll() is None,
            )
        except AssertionError:
            self.kill()
            raise AssertionError(log.read_text()) from None
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

    def kill(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.server = None

    def compose(self, words: list[str]) -> str:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        profiles = {name for one in services.values() for name in one.get("profiles", ())}
        while words[0] == "--profile":
            assert words[1] in profiles
            words = words[2:]
        assert words[0] in {"up", "exec", "run", "restart"}
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


def new_developer(home: Path, shop: Path, releases: Path) -> Developer:
    """With the demo shop and the demo release in their folder, served."""
    (home / ".venv").symlink_to(sys.prefix)
    shutil.copytree(shop, home / "shop")
    shutil.copytree(releases, home / "releases", symlinks=True)
    one = Developer(home)
    one.serve([sys.executable, "-m", "service", "--releases", str(releases), "--state-dir", str(home / "demo-state")])
    return one
