"""The parts of a condition that the grammar joins: their SQL, their types, and the checks of single values."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from isrf.contract.item_fields import AttributeType, parse_time
from isrf.contract.shown import MAX_SHOWN, printable, shown
from service.release.conditions.tokens import Token, refusal

PartType: TypeAlias = Literal["number", "text", "boolean", "time", "texts", "span"]
"""`span` is an interval of time."""
CONTEXT = "context."
"""Begins the names of the values that a call brings."""
MAX_PATTERN = 100
"""Characters of a regular expression or of a pattern of `LIKE`."""
_NEAR, _LISTED = 3, 20
"""Attributes that a message suggests, or lists."""
TYPE_NAMES: Mapping[str, str] = {
    "number": "a number", "text": "a text", "boolean": "true or false", "time": "a time", "texts": "a list of texts",
    "span": "an interval",
}  # fmt: skip

FUNCTIONS: Mapping[str, tuple[tuple[PartType, ...], PartType, str]] = {
    "LOWER": (("text",), "text", "LOWER({})"),
    "UPPER": (("text",), "text", "UPPER({})"),
    "LENGTH": (("text",), "number", "LENGTH({})"),
    "STARTS_WITH": (("text", "text"), "boolean", "STARTS_WITH({}, {})"),
    "ENDS_WITH": (("text", "text"), "boolean", "ENDS_WITH({}, {})"),
    "ARRAY_LENGTH": (("texts",), "number", "ARRAY_LENGTH({})"),
    "ARRAY_CONTAINS": (("texts", "text"), "boolean", "ARRAY_CONTAINS({}, {})"),
    "ABS": (("number",), "number", "ABS({})"),
    "ROUND": (("number",), "number", "ROUND({})"),
    "FLOOR": (("number",), "number", "FLOOR({})"),
    "CEIL": (("number",), "number", "CEIL({})"),
    "NUMBER": (("text",), "number", "TRY_CAST({} AS DOUBLE)"),
}
"""Types of the arguments, type of the result, and the SQL of each function."""


class CheckedText(NamedTuple):
    """A condition that polars can compile.

    Attributes:
        sql: names are those of `internal_name`.
        names: of columns and values of the request, each once; the position of a name is its internal number.
    """

    sql: str
    names: tuple[str, ...]


class KnownNames(NamedTuple):
    """The names that a condition may use.

    Attributes:
        types: of columns and of values of the request.
        has_context: whether the call can bring values of its own, `context.NAME`.
        any_context: whether each `context.NAME` is known, as a text.
    """

    types: Mapping[str, AttributeType]
    has_context: bool
    any_context: bool

    def type_of(self, token: Token) -> AttributeType:
        """Returns the type of a name; raises `RequestError` where it is not known."""
        of_context, name = token.text.startswith(CONTEXT), printable(token.text)
        found = self.types.get(token.text, "text" if of_context and self.any_context else None)
        if found is not None:
            return found
        if not of_context:
            raise refusal(f"there is no attribute {name}", token.at, near(token.text, self.types))
        if not self.has_context:
            fix = "Compare attributes, now and the user's items; a context belongs to a call that asks for a list."
            raise refusal(f"this call has no context, so there is no {name}", token.at, fix)
        fix = f'Send {name}=VALUE, or in a body "context": {{"{name.removeprefix(CONTEXT)}": "VALUE"}}.'
        raise refusal(f"the call brings no {name}", token.at, fix)


class Part(NamedTuple):
    """A part of the condition: its SQL, type and place, and how tightly its operator binds."""

    sql: str
    type: PartType
    at: int
    tightness: int = 7  # 0 OR, 1 AND, 2 NOT, 3 comparison, 4 sum, 5 product, 6 sign, 7 name or value
    literal: str | None = None  # the content of a literal text
    written: str = ""  # a name or a literal text, as a condition has it

    def within(self, tightness: int) -> str:
        """The SQL for a place where parts bind at least so tightly."""
        return self.sql if self.tightness >= tightness else f"({self.sql})"


def internal_name(number: int) -> str:
    """Returns the name that stands for a column in the SQL; the shop's own could mean something to polars."""
    return f"c{number}"


def membership(texts: Sequence[Part], of: Part, *, negated: bool) -> str:
    """Says how a condition asks whether a list of texts contains one of some texts, or none of them."""
    written = [part.written for part in texts if part.written]
    are_few = bool(of.written) and len(written) == len(texts) <= _NEAR
    if not are_few or len(of.written) + max(map(len, written)) > MAX_SHOWN:
        return "Write 'Cups' IN categories."
    asked = [f"{'NOT ' if negated else ''}{printable(one)} IN {printable(of.written)}" for one in written]
    return f"Write {(' AND ' if negated else ' OR ').join(asked)}."


def balanced(parts: Sequence[str], word: str) -> str:
    """Joins conditions as a balanced tree: in a chain, polars takes time that grows with the cube of its length."""
    if len(parts) <= 2:
        return f" {word} ".join(parts)
    middle = len(parts) // 2
    halves = [f"({balanced(half, word)})" if len(half) > 1 else half[0] for half in (parts[:middle], parts[middle:])]
    return f" {word} ".join(halves)


def moment_of(token: Token) -> Part:
    """Reads a text as a moment."""
    moment = parse_time(token.text)
    if moment is None:
        raise refusal(f"{shown(token.text)} is no time", token.at, "Write it in ISO 8601: '2025-12-31T18:00:00Z'.")
    return Part(f"TIMESTAMP '{moment.isoformat(' ')}'", "time", token.at)


def check_regex(token: Token) -> None:
    """Refuses a regular expression that could take polars long."""
    # A counted repetition makes an expression of megabytes from a few characters; polars then needs a minute.
    # Only an odd number of backslashes before the bracket makes it a character.
    if re.search(r"(?<!\\)(?:\\\\)*\{", token.text):
        fix = "Write \\{ for the character, or [0-9][0-9] for a repetition."
        raise refusal("regular expressions with {} are too slow", token.at, fix)


def quoted(text: str) -> str:
    """Returns a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def near(name: str, names: Collection[str]) -> str:
    """Says which names resemble one, or which there are."""
    by_folded = {known.casefold(): known for known in names}
    found = difflib.get_close_matches(name.casefold(), by_folded, n=_NEAR, cutoff=0.6)
    if found:
        return f"Did you mean {' or '.join(printable(by_folded[folded]) for folded in found)}?"
    listed = sorted(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return f"Known are {', '.join(map(printable, listed[:_LISTED]))}{more}; texts stand in single quotes."
