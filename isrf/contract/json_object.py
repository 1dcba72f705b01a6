"""JSON objects whose names stand once. Of two equal names a parser keeps the last in silence; here it is an error.

Reading twice is paid for only where a cheap count of colons leaves it open.
"""

import json
from typing import Any


class _Twice(Exception):  # noqa: N818 - carries a name out of the parser, and is no error of a caller
    pass


def doubled_name(text: str | bytes, parsed: Any) -> str | None:
    """A name that stands twice in one object of a JSON text, None where there is none.

    Args:
        text: JSON in UTF-8.
        parsed: what any parser made of it.
    """
    colons = text.count(b":") if isinstance(text, bytes) else text.count(":")
    if colons == _num_names(parsed):
        return None  # every pair has a colon of its own, so none was dropped
    try:
        json.loads(text, object_pairs_hook=_object)
    except _Twice as twice:
        return str(twice)
    except RecursionError:
        return None  # deeper than anything that is taken in
    return None


def _num_names(value: Any) -> int:
    waiting, count = [value], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            count += len(one)
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return count


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(name)
            seen.add(name)
    return names
