"""How deep a JSON text nests and how much it holds, found out from its bytes before anything is made of it.

What is made of a field costs a hundred times what its bytes cost to send, so a text of junk must be refused unread.
Everything here runs at the speed of `bytes.count` and `bytes.replace`. A text that is not JSON is left to the parser.
"""

import re

from isrf.contract.errors import RequestError

MAX_DEPTH = 32
MAX_FIELDS = 20_000
"""Of a whole body, or of one line of an import: a thousand full events have less than half of it."""
MAX_VALUES = 40_000
"""Of the same, beside each other in lists and objects; and so many lists and objects."""

NAMED = 3
"""Fields that a refusal names."""

_NAME = re.compile(rb'"([^"\\\\]{1,40})"\s*:')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(code for code in range(256) if code not in b"[]{}")


def check_json(text: bytes) -> None:
    """Raises `RequestError` on a text that is not UTF-8, nests deeper or has more fields or values than any meant.

    A parser would read UTF-16 as well, whose escapes are not those that are looked for here.
    """
    try:
        text.decode()
        wrong = text.find(b"\0")
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        raise RequestError(
            "request.malformed_json",
            f"the body is not JSON in UTF-8: its byte {wrong} is {text[wrong]:#04x}.",
            fix="Send JSON in UTF-8, not compressed.",
        )
    problem = json_problem(text)
    if problem is not None:
        raise RequestError(
            "request.too_complex", f"the body {problem}.", fix="Send what the schema names, in several requests."
        )


def json_problem(text: bytes) -> str | None:
    """What is too much of a JSON text, to follow its name; None for nothing."""
    few = text.count(b":") <= MAX_FIELDS and text.count(b",") < MAX_VALUES
    if few and text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return None
    # Without escapes every second piece between quotation marks is a string.
    outside = b"".join(text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    num_fields = outside.count(b":")
    if num_fields > MAX_FIELDS:
        first = [name.decode("utf-8", "replace") for name in _NAME.findall(text[:2048])[:NAMED]]
        return f"has {num_fields} fields ({', '.join(map(repr, first))}, …), {MAX_FIELDS} are allowed"
    num_values = 1 + outside.count(b",")
    if num_values > MAX_VALUES:
        return f"has {num_values} values, {MAX_VALUES} are allowed"
    brackets = outside.translate(_BRACKETS, _NO_BRACKET)
    opened = brackets.count(b"[")
    if opened != len(brackets) - opened:
        return None
    if opened > MAX_VALUES:
        return f"has {opened} lists and objects, {MAX_VALUES} are allowed"
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return None
    return f"nests deeper than {MAX_DEPTH} levels"
