"""Limits the nesting and the size of a JSON text by its bytes, before it is parsed.

Parsing a field costs a hundred times what sending its bytes costs, so the service must refuse a text of junk unparsed.
Everything here runs at the speed of `bytes.count` and `bytes.replace`. The parser refuses a text that is not JSON.
"""

import re

from isrf.contract.errors import RequestError

MAX_DEPTH = 32
MAX_FIELDS = 20_000
"""In a whole body, or in one line of an import: a thousand full events have less than half of it."""
MAX_VALUES = 40_000
"""In the same: separated by commas in lists and objects. It also limits the number of lists and objects."""

NAMED = 3
"""How many fields a refusal names."""

_NAME = re.compile(rb'"([^"\\\\]{1,40})"\s*:')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(code for code in range(256) if code not in b"[]{}")


def check_json(text: bytes) -> None:
    """Raises `RequestError` for a text that is not UTF-8, nests too deep or has too many fields or values.

    A parser would also read UTF-16, whose escapes this module does not recognise.
    """
    try:
        text.decode()
        wrong_byte = text.find(b"\0")
    except UnicodeDecodeError as error:
        wrong_byte = error.start
    if wrong_byte >= 0:
        raise RequestError(
            "request.malformed_json",
            f"the body is not JSON in UTF-8: its byte {wrong_byte} is {text[wrong_byte]:#04x}.",
            fix="Send JSON in UTF-8; name gzip in Content-Encoding where you compress it.",
        )
    problem = json_problem(text)
    if problem is not None:
        raise RequestError(
            "request.too_complex",
            f"the body {problem}.",
            fix="Send only the fields of the schema, in several requests.",
        )


def json_problem(text: bytes) -> str | None:
    """Says which limit a JSON text exceeds, as the predicate of a sentence; None where it exceeds none."""
    few = text.count(b":") <= MAX_FIELDS and text.count(b",") < MAX_VALUES
    if few and text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return None
    # After escapes are removed, every second piece between quotation marks is a string.
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
