"""Markdown as the reference pages write it: wrapped prose, tables, and the sentences that stand in the code."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
WARNING = "<!-- Written by `make docs` from the code: change it there. -->"


def page(title: str, *parts: str) -> str:
    """A whole generated page."""
    return "\n\n".join([WARNING, f"# {title}", *(part.strip("\n") for part in parts if part)]) + "\n"


def prose(text: str) -> str:
    """A paragraph at the documents' width."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells may hold Markdown; a bar in one is no border."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("\\|", "|").split()).replace("|", "\\|")


def code(text: object) -> str:
    """In backticks; nothing stays nothing."""
    return f"`{text}`" if str(text) else ""


def field_sentences(cls: type) -> dict[str, str]:
    """The sentence below each field of a class, its bases' first."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if one.__module__.partition(".")[0] in ("isrf", "offline", "service"):
            found |= _own_sentences(one)
    return found


def _own_sentences(cls: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = " ".join(below.value.value.split())
    return found
