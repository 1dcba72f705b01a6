"""Reads a bundle's arrays from their files' bytes safely: it checks the header before it makes an array.

NumPy's own loader allocates the size that a header claims, and may unpickle objects. Here the dtype must be numeric,
and the size must match the bytes after the header. The array is a view of the bytes.
"""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.runtime.bundle.contents import Content
from isrf.runtime.bundle.refusals import PUBLISH, refusing

_LONGEST_HEADER = 10_000
_NUMBERS_AT_ONCE = 1 << 18


def array_of(name: str, content: Content) -> NDArray[Any]:
    """The array of a `.npy` file, a view of its bytes.

    Raises:
        BundleError: `bundle.array_mismatch`, it is not a numeric `.npy` file; `bundle.not_finite`, it holds NaN or ∞.
    """
    with refusing("bundle.array_mismatch", name):
        head = io.BytesIO(content[: 16 + _LONGEST_HEADER].tobytes())
        version = np.lib.format.read_magic(head)
        if version not in {(1, 0), (2, 0)}:
            raise BundleError("bundle.array_mismatch", f"{name} has .npy version {version}.", fix=PUBLISH)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(head, max_header_size=_LONGEST_HEADER)
        start = head.tell()
        counts = all(type(size) is int and size >= 0 for size in shape)
        if dtype.hasobject or dtype.kind not in "fiub" or not counts:
            raise BundleError(
                "bundle.array_mismatch", f"{name} holds {dtype} {_short(shape)}, which are no numbers.", fix=PUBLISH
            )
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != len(content) - start:
            raise BundleError(
                "bundle.array_mismatch",
                f"{name} claims to hold {dtype} {_short(shape)}, {claimed} bytes, but holds {len(content) - start}.",
                fix=PUBLISH,
            )
        flat = content[start:].view(dtype)
        array: NDArray[Any] = flat.reshape(shape, order="F" if by_columns else "C")
        if not array.flags.aligned:
            array = array.copy()
    check_finite(name, array)
    return array


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Raises `BundleError` (`bundle.not_finite`) where a float array holds NaN or an infinite number."""
    if array.dtype.kind != "f":
        return
    rows = np.atleast_1d(array)
    step = max(1, _NUMBERS_AT_ONCE // max(1, math.prod(rows.shape[1:])))
    for start in range(0, len(rows), step):
        finite = _finite(rows[start : start + step])
        if not finite.all():
            where = np.argwhere(~finite)[0]
            where[0] += start
            raise BundleError(
                "bundle.not_finite",
                f"{name} holds {rows[tuple(where)]} at {tuple(where.tolist())}, which is not a finite number.",
                fix=PUBLISH,
            )


def _finite(part: NDArray[Any]) -> NDArray[Any]:
    if part.dtype == np.float16:
        # By the bits, because NumPy would first convert every float16 to float32.
        return np.asarray((np.ascontiguousarray(part).view(np.uint16) & 0x7C00) != 0x7C00)
    return np.asarray(np.isfinite(part))


def _short(shape: tuple[Any, ...]) -> str:
    return str(shape)[:100]
