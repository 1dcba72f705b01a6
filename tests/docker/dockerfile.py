"""Dockerfiles as data: the instructions of each stage, so that tests can judge and replay them without an engine."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)  # instruction, its text


def read_stages(path: Path, **arguments: str) -> list[Stage]:
    """The stages that hold something, with build arguments and nothing else filled in."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    values: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(str.strip, lines):
        word, rest = line.split(maxsplit=1)
        for name, value in values.items():
            rest = rest.replace(f"${{{name}}}", value)
        if word == "ARG":
            name, _, default = rest.partition("=")
            values[name] = arguments.get(name, default)
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            stages[-1].steps.append((word, rest.strip()))
    # `FROM scratch` is an empty folder that the build may be given in another's place (`--build-context`).
    return [stage for stage in stages if stage.base != "scratch"]


def environment(stage: Stage) -> dict[str, str]:
    pairs = (one.split("=", 1) for word, rest in stage.steps if word == "ENV" for one in shlex.split(rest))
    return dict(pairs)


def last(stage: Stage, word: str) -> str:
    return [rest for found, rest in stage.steps if found == word][-1]


def entrypoint(stage: Stage) -> list[str]:
    command: list[str] = json.loads(last(stage, "ENTRYPOINT"))
    return command
