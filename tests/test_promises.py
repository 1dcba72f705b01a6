"""A docstring that says what a module does not know is a promise, held here by what the module imports.

Of a package's docstring it holds for every module in it. Words that stand for no library (*prompts*, *held-out data*)
are left to the reader.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("isrf", "offline", "service", "clients/python/isrf_client")

HTTP = {"fastapi", "starlette", "uvicorn", "httptools", "http", "httpx", "aiohttp", "service.api", "service.server"}
REDIS = {"redis", "hiredis", "service.state.redis"}
STORE = {*REDIS, "sqlite3", "service.state.sqlite", "service.state.store", "service.state.connect"}
FILES = {"open", "os", "io", "pathlib", "shutil", "tempfile", "glob", "mmap", "sqlite3", "socket"}
FORBIDDEN: dict[str, set[str]] = {
    "HTTP": HTTP,
    "JSON": {"json", "orjson"},
    "torch": {"torch"},
    "transformers": {"transformers"},
    "scikit-learn": {"sklearn"},
    "offline": {"offline"},
    "ONNX Runtime": {"onnxruntime"},
    "FAISS": {"faiss"},
    "Redis": REDIS,
    "store": STORE,
    "files?|IO": FILES,
    "socket": {"socket"},
    "clock": {"time"},
    "models?": {"torch", "onnxruntime", "isrf.nn", "service.inference.engine"},
    "graphs?": {"torch", "onnxruntime"},
    "bundles?": {"isrf.runtime.bundle"},
    "releases?": {"isrf.runtime.bundle", "offline.runtime.release", "service.release"},
    "routes?": {"service.api.routes"},
    "metrics": {"isrf.method.metrics", "service.telemetry.metrics"},
    "index": {"faiss"},
}
"""Words of a promise, and what a module that makes it may not import (`open`: the function, called)."""

PROMISES = (
    r"\b[Ii]t (?:deliberately )?(?:knows (?:no|neither|nothing of)|does not know|has no|does no|needs no)\b([^.;:]*)",
    r"\b(?:[Nn]ever imports?|and never)\b([^.;:]*)",
    r"\bNo module opens\b([^.;:]*)",
    r"\bopens no (file)\b(?! but)",
    r"\((?:[^()]*, )?no (IO)\)",
    r"\bPure(?=[.:])(?P<files>)",
    r"\bopens nothing(?=[.:;])(?P<files>)",
)


class Promise(NamedTuple):
    docstring: Path
    modules: tuple[Path, ...]
    word: str


def words_of(docstring: str) -> set[str]:
    """Those of `FORBIDDEN` that a docstring promises to know nothing of."""
    text = " ".join(docstring.split())
    found = set()
    for pattern in PROMISES:
        for match in re.finditer(pattern, text):
            said = match[1] or "files"
            # After "but" comes what it does know; "what files mean" and "no other release" are no files and no release.
            said = re.split(r"\b(?:but|except|beside|aside|what|whose|other)\b", said)[0]
            found |= {word for word in FORBIDDEN if re.search(rf"\b(?:{word})\b", said)}
    return found


def imports(module: Path) -> Iterator[str]:
    """Full names, of what is imported anywhere in the module; `open` where it is called."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"


def broken(modules: tuple[Path, ...], word: str) -> list[str]:
    return [
        f"{module}: {name}"
        for module in modules
        for name in imports(module)
        if any(name == one or name.startswith(f"{one}.") for one in FORBIDDEN[word])
    ]


def promises() -> Iterator[Promise]:
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
            about = tuple(module.parent.rglob("*.py")) if module.name == "__init__.py" else (module,)
            for word in sorted(words_of(docstring)):
                yield Promise(module.relative_to(ROOT), about, word)


MADE = list(promises())


@pytest.mark.parametrize("promise", MADE, ids=lambda one: f"{one.docstring}: {one.word}")
def test_what_a_docstring_says_is_not_known_is_not_imported(promise: Promise) -> None:
    assert broken(promise.modules, promise.word) == []


def test_the_contract_opens_its_scripts_alone() -> None:
    modules = tuple((ROOT / "isrf" / "contract").rglob("*.py"))
    assert broken(modules, "files?|IO") == []
    opening = {module.name for module in modules if any(name.startswith("importlib.res") for name in imports(module))}
    assert opening == {"event_log.py"}


def test_promises_are_found_where_they_are_made() -> None:
    made = {(str(one.docstring), one.word) for one in MADE}
    assert {
        ("isrf/contract/errors.py", "HTTP"),
        ("isrf/method/__init__.py", "files?|IO"),
        ("isrf/method/__init__.py", "clock"),
        ("isrf/method/recommend/recommender.py", "ONNX Runtime"),
        ("isrf/method/recommend/recommender.py", "FAISS"),
        ("isrf/runtime/__init__.py", "torch"),
        ("service/__init__.py", "torch"),
        ("service/inference/__init__.py", "HTTP"),
        ("service/recommend/__init__.py", "HTTP"),
        ("service/release/snapshot.py", "store"),
    } <= made


@pytest.mark.parametrize(
    ("docstring", "words"),
    [
        ("It knows no HTTP and no JSON; routes do.", {"HTTP", "JSON"}),
        ("It knows neither ONNX Runtime nor FAISS nor torch.", {"ONNX Runtime", "FAISS", "torch"}),
        ("Which of two stands. Pure.", {"files?|IO"}),
        ("Pure ASGI, inside of everything.", set()),
        ("It opens no file but the scripts beside it.", set()),
        ("It knows nothing of what the files mean, and no other release.", set()),
    ],
)
def test_a_promise_is_read(docstring: str, words: set[str]) -> None:
    assert words_of(docstring) == words


def test_a_broken_promise_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""It knows no JSON and no files."""\n\ndef f():\n    from orjson import dumps\n    open("x")\n')
    assert len(broken((module,), "JSON")) == 1
    assert len(broken((module,), "files?|IO")) == 1
