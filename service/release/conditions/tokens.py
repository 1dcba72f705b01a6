"""Splits the text of a condition into its words, and refuses a condition with the place of what is wrong."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from isrf.contract.errors import RequestError
from isrf.contract.shown import shown

MAX_BYTES = 2048

TYPED_WORDS = ("DATE", "TIMESTAMP", "INTERVAL")
"""Words before a text that is a moment or an interval; without one they are names."""
WORDS = frozenset(TYPED_WORDS).union(
    (
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "BETWEEN",
        "LIKE",
        "ILIKE",
        "REGEXP",
        "RLIKE",
        "TRUE",
        "FALSE",
        *TYPED_WORDS,
    )
)

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    |'(?P<text>(?:[^']|'')*)'
    |"(?P<quoted>(?:[^"]|"")+)"
    |(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
    |(?P<sign><>|!=|<=|>=|==|!~\*|!~|~\*|[=<>~+\-*/%(),])""",
    re.VERBOSE,
)


class Token(NamedTuple):
    """A word, value or sign; `at` is the place of its first character, from 0."""

    kind: str  # number, text, quoted, name, sign, end
    text: str
    at: int

    @property
    def word(self) -> str:
        """The key word or sign, in capitals; "" for a value and a quoted name."""
        return self.text.upper() if self.kind in ("name", "sign") else ""


def refusal(message: str, at: int, fix: str) -> RequestError:
    """Returns the refusal of a condition; `at` is the place of its character, from 0."""
    place = at + 1
    return RequestError("condition.invalid", f"the condition, at character {place}: {message}.", fix=fix)


def read_tokens(text: str) -> Iterator[Token]:
    """Yields the words, values and signs of a condition, and an end; raises `RequestError` where there is another."""
    size = len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        raise RequestError(
            "condition.invalid", f"the condition has {size} bytes, {MAX_BYTES} are allowed.", fix="Shorten it."
        )
    if not text.isprintable() and any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise RequestError("condition.invalid", "the condition is not valid Unicode.", fix="Send it in UTF-8.")
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a text without its end" if text[at] in "'\"" else f"{shown(text[at])} is not understood"
            raise refusal(what, at, "Write a condition as in an SQL WHERE clause: brand = 'Auralis' AND price < 80.")
        kind = str(found.lastgroup)
        if kind != "space":
            quote = {"text": "'", "quoted": '"'}.get(kind)
            content = found[kind]
            yield Token(kind, content.replace(quote * 2, quote) if quote else content, at)
        at = found.end()
    yield Token("end", "", len(text))
