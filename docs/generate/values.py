"""What a setting takes, in words: its type, its bounds and its default."""

import types
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from docs.generate.markdown import code

_NAMES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}


class Allowed(NamedTuple):
    """What stands in a table's column."""

    kind: str
    bounds: str

    @property
    def words(self) -> str:
        return ", ".join(filter(None, self))


def allowed(field: FieldInfo) -> Allowed:
    """What a field takes."""
    kind, metadata = _plain(field.annotation, list(field.metadata))
    return Allowed(_name(kind), _bounds(metadata))


def default_of(value: object) -> str:
    """As a person would write it; `none` for nothing."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, (frozenset, tuple, list, dict)) and not value:
        return "none"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"`{value}` ({value >> 20} MiB)"
    if isinstance(value, float):
        return code(f"{value:g}")
    return code(value) or "empty"


def _plain(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    """Without `None`, and what `Annotated` says beside it."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _plain(inner, [*metadata, *(bound for one in more for bound in _parts(one))])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [one for one in get_args(annotation) if one is not types.NoneType]
        if len(kinds) == 1:
            return _plain(kinds[0], metadata)
    return annotation, metadata


def _parts(metadata: Any) -> list[Any]:
    return list(metadata.metadata) if isinstance(metadata, FieldInfo) else [metadata]


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(code(value) for value in get_args(kind))
    if get_origin(kind) in (frozenset, tuple):
        return "names, separated by commas"
    if get_origin(kind) is dict:
        return "table of names"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    return _NAMES.get(kind, "text")


def _bounds(metadata: list[Any]) -> str:
    found = {
        name: getattr(one, name)
        for one in metadata
        for name in ("ge", "gt", "le", "lt")
        if isinstance(one, getattr(annotated_types, name.capitalize()))
    }
    words = [f"at least {one.min_length} characters" for one in metadata if isinstance(one, annotated_types.MinLen)]
    if {"ge", "le"} <= found.keys():
        words.append(f"{_number(found['ge'])} to {_number(found['le'])}")
        return ", ".join(words)
    texts = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join([*words, *(f"{texts[name]} {_number(bound)}" for name, bound in found.items())])


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
