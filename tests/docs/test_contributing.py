"""CONTRIBUTING.md leads somewhere: its files, names and tests are there; GitHub's forms are forms."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line, comments=True) for line in GUIDE.splitlines() if line.startswith(".venv/bin/pytest")]
FORMS = {
    ".github/ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/idea.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    ".github/workflows/tests.yml": "vendor.github-workflows",
}


def words() -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", GUIDE)


def test_every_file_exists() -> None:
    paths = {word for word in words() if re.fullmatch(r"[\w.-]+(/[\w.-]+)+|[\w-]+\.(md|toml|txt|yml|yaml)", word)}
    assert len(paths) > 40
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_room_is_listed() -> None:
    listed = set(re.findall(r"^\| `([^`]+)`", GUIDE, re.MULTILINE))
    rooms = {
        init.parent.relative_to(ROOT).as_posix()
        for package in ("isrf", "offline", "service")
        for init in (ROOT / package).glob("*/__init__.py")
    }
    assert rooms <= listed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_test_that_is_named_is_there(command: list[str]) -> None:
    files = [ROOT / word for word in command if word.endswith(".py")]
    assert files
    wanted = re.split(r" or ", command[command.index("-k") + 1]) if "-k" in command else ["test"]
    names = [name for file in files for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))]
    assert [word for word in wanted if not any(word in name for name in names)] == []


def test_every_name_stands_in_a_file_that_its_step_names() -> None:
    checked = 0
    for step in re.findall(r"^\d\. .+?(?=^\d\. |^$)", GUIDE, re.MULTILINE | re.DOTALL):
        spelled = re.findall(r"`([^`\n]+)`", step)
        text = "".join((ROOT / one).read_text(encoding="utf-8") for one in spelled if (ROOT / one).is_file())
        for name in spelled if text else ():
            if not (ROOT / name).exists() and re.fullmatch(r"_?[A-Z][A-Za-z_]+(\.\w+)?|[a-z]*_[a-z_]+", name):
                checked += 1
                assert all(re.search(rf"\b{part}\b", text) for part in name.split(".")), (name, step)
    assert checked > 15


@pytest.mark.parametrize(("path", "schema"), FORMS.items())
def test_github_can_read_its_files(path: str, schema: str) -> None:
    command = [f"{sys.prefix}/bin/check-jsonschema", "--builtin-schema", schema, str(ROOT / path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
