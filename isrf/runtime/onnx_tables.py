"""Takes the item tables out of an exported graph's file and makes them inputs, so that they are read where they lie.

A session copies the tables of its file: an interest graph over a million items would be in memory twice, and again in
each worker. As an input, a table stays a view of the file's bytes, which may be a mapping that the workers share.

It reads only the few fields of ONNX's protocol buffers that lead to the tables (onnx.proto: ModelProto.graph 7,
GraphProto.initializer 5 and input 11, TensorProto.dims 1, data_type 2, name 8, raw_data 9, external_data 13).
A file that it does not understand stays whole, and ONNX Runtime says what is wrong with it.
`aligned_tables` is the part of the export: a view needs numbers whose addresses are multiples of their size.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TAKEN_FROM = 1 << 20
"""Bytes of a table from which on it is taken out, if it has more rows than columns: a matrix stays a constant."""
ALIGNMENT = 64

_GRAPH, _INITIALIZER, _INPUT = 7, 5, 11
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _DOC_STRING, _EXTERNAL_DATA = 1, 2, 8, 9, 12, 13
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    7: np.dtype(np.int64),
    10: np.dtype(np.float16),
    6: np.dtype(np.int32),
}
"""Of the tables that a release's graphs hold, by TensorProto.DataType."""


class SplitModel(NamedTuple):
    """A model without its large tables, which are its last inputs instead.

    Attributes:
        model: the rest of the file.
        tables: views of the file's bytes, by the input's name.
    """

    model: bytes
    tables: dict[str, NDArray[Any]]


class _Field(NamedTuple):
    number: int
    kind: int
    begin: int  # of the whole field
    start: int  # of its content
    end: int


class _UnknownFormatError(ValueError):
    """The bytes are not a protocol buffer as expected."""


def split_tables(content: NDArray[np.uint8]) -> SplitModel:
    """Splits the bytes of an `.onnx` file (n,); the model is the whole file where it has no large table."""
    try:
        return _split(content)
    except _UnknownFormatError:
        return SplitModel(content.tobytes(), {})


def aligned_tables(content: bytes) -> bytes:
    """The same model with the data of each large table at a multiple of `ALIGNMENT` bytes from the file's start.

    A comment of the right length comes before the data; for ONNX the model is the same.
    """
    view = memoryview(content)
    outer = list(_fields(view, 0, len(view)))
    graph = next(field for field in outer if field.number == _GRAPH)
    before = [view[field.begin : field.end] for field in outer if field.end <= graph.begin]
    after = [view[field.begin : field.end] for field in outer if field.begin >= graph.end]
    length = 0
    for _ in range(2):  # the second time with the place that the graph's own length takes
        start = at = sum(map(len, before)) + len(_key(_GRAPH, _LENGTH)) + len(_number(length))
        parts: list[bytes | memoryview] = []
        for field in _fields(view, graph.start, graph.end):
            added = _padded(view, field, at) if _is_large(field) else [view[field.begin : field.end]]
            parts += added
            at += sum(map(len, added))
        length = at - start
    return b"".join([*before, _key(_GRAPH, _LENGTH), _number(length), *parts, *after])


def _padded(view: memoryview, tensor: _Field, at: int) -> list[bytes | memoryview]:
    """The parts of an initializer that begins at byte `at`, its data last and aligned."""
    fields = list(_fields(view, tensor.start, tensor.end))
    data = [field for field in fields if field.number == _RAW_DATA]
    if len(data) != 1:
        return [view[tensor.begin : tensor.end]]
    rest = b"".join(bytes(view[field.begin : field.end]) for field in fields if field.number != _RAW_DATA)
    raw = view[data[0].start : data[0].end]
    for spaces in range(ALIGNMENT):
        inner = rest + _message(_DOC_STRING, b" " * spaces) + _key(_RAW_DATA, _LENGTH) + _number(len(raw))
        head = _key(_INITIALIZER, _LENGTH) + _number(len(inner) + len(raw)) + inner
        if (at + len(head)) % ALIGNMENT == 0:
            break
    return [head, raw]


def _is_large(field: _Field) -> bool:
    return field.number == _INITIALIZER and field.kind == _LENGTH and field.end - field.start >= TAKEN_FROM


def _split(content: NDArray[np.uint8]) -> SplitModel:
    view = content.data
    tables: dict[str, NDArray[Any]] = {}
    model: list[bytes] = []
    for outer in _fields(view, 0, len(view)):
        if outer.number != _GRAPH or outer.kind != _LENGTH:
            model.append(bytes(view[outer.begin : outer.end]))
            continue
        graph: list[bytes] = []
        for field in _fields(view, outer.start, outer.end):
            declared = _taken(view, content, field, tables) if _is_large(field) else None
            graph.append(bytes(view[field.begin : field.end]) if declared is None else declared)
        model.append(_message(_GRAPH, b"".join(graph)))
    return SplitModel(b"".join(model), tables)


def _taken(
    view: memoryview, content: NDArray[np.uint8], tensor: _Field, tables: dict[str, NDArray[Any]]
) -> bytes | None:
    """Adds an initializer to `tables`; returns the input in its place, None where it stays an initializer."""
    name, dims, kind, data = "", list[int](), 0, None
    for field in _fields(view, tensor.start, tensor.end):
        if field.number == _RAW_DATA and field.kind == _LENGTH:
            data = field
        elif field.number == _NAME and field.kind == _LENGTH:
            name = str(view[field.start : field.end], "utf-8", "replace")
        elif field.number == _DATA_TYPE and field.kind == _VARINT:
            kind = _varint(view, field.start, field.end)[0]
        elif field.number == _DIMS:
            dims += [_varint(view, field.start, field.end)[0]] if field.kind == _VARINT else _packed(view, field)
        elif field.number == _EXTERNAL_DATA:
            return None
    dtype = _DTYPES.get(kind)
    if data is None or dtype is None or not name or name in tables or len(dims) != 2 or dims[0] <= dims[1]:
        return None
    if math.prod(dims) * dtype.itemsize != data.end - data.start:
        return None
    table = content[data.start : data.end].view(dtype).reshape(dims)
    # Older releases are not aligned; a copy is made once for each process.
    tables[name] = table if table.flags.aligned else table.copy()
    # ValueInfoProto.name 1 and type 2, TypeProto.tensor_type 1, its elem_type 1 and shape 2, dim 1, dim_value 1.
    shape = b"".join(_message(1, _key(1, _VARINT) + _number(size)) for size in dims)
    tensor_type = _key(1, _VARINT) + _number(kind) + _message(2, shape)
    return _message(_INPUT, _message(1, name.encode()) + _message(2, _message(1, tensor_type)))


def _fields(view: memoryview, start: int, end: int) -> Iterator[_Field]:
    at = start
    while at < end:
        key, content = _varint(view, at, end)
        number, kind = key >> 3, key & 7
        stop = content
        if kind == _VARINT:
            stop = _varint(view, content, end)[1]
        elif kind == _LENGTH:
            length, content = _varint(view, content, end)
            stop = content + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            stop = content + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise _UnknownFormatError
        if stop > end:
            raise _UnknownFormatError
        yield _Field(number, kind, at, content, stop)
        at = stop


def _packed(view: memoryview, field: _Field) -> list[int]:
    values, at = [], field.start
    while at < field.end:
        value, at = _varint(view, at, field.end)
        values.append(value)
    return values


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    while at < end and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _UnknownFormatError


def _number(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _key(number: int, kind: int) -> bytes:
    return _number(number << 3 | kind)


def _message(number: int, content: bytes) -> bytes:
    return b"".join([_key(number, _LENGTH), _number(len(content)), content])
