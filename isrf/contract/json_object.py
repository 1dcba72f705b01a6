"""Finds a name that appears twice in one JSON object. A parser silently uses the last of the two; here it is an error.

The text is parsed a second time only where a cheap count of colons does not settle it.
"""

import json
from typing import Any


class _RepeatedName(Exception):  # noqa: N818 - carries a name out of the parser; it is no error of a caller
    pass


def doubled_name(text: str | bytes, parsed: Any) -> str | None:
    """A name that appears twice in one object of a JSON text; None where there is none.

    Args:
        text: JSON in UTF-8.
        parsed: the text as any parser read it.
    """
    colons = text.count(b":") if isinstance(text, bytes) else text.count(":")
    if colons == _num_names(parsed):
        return None  # every pair has a colon of its own, so the parser dropped none
    try:
        json.loads(text, object_pairs_hook=_object)
    except _RepeatedName as repeated:
        return str(repeated)
    except RecursionError:
        return None  # deeper than anything that the readers accept
    return None


def _num_names(value: Any) -> int:
    pending, count = [value], 0
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            count += len(node)
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return count


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _RepeatedName(name)
            seen.add(name)
    return names
