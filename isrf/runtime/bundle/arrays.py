"""A bundle's arrays out of their files' bytes: the header is judged before anything is made of it, nothing is run.

NumPy's own loader allocates what a header claims, and unpickles objects where it is allowed to; here dtype and size
have to be what stands behind the header. The array is a view of the bytes.
"""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isrf.contract.errors import BundleError
from isrf.runtime.bundle.folder import Content
from isrf.runtime.bundle.refusals import PUBLISH, refusing

_LONGEST_HEADER = 10_000
_LOOKED_AT = 1 << 20


def array_of(name: str, content: Content) -> NDArray[Any]:
    """The array of a `.npy` file, a view of its bytes.

    Raises:
        BundleError: `bundle.array_mismatch` where it is no such file, `bundle.not_finite` where a number of it is none.
    """
    with refusing("bundle.array_mismatch", name):
        head = io.BytesIO(content[: 16 + _LONGEST_HEADER].tobytes())
        version = np.lib.format.read_magic(head)
        if version not in {(1, 0), (2, 0)}:
            raise BundleError("bundle.array_mismatch", f"{name} is of .npy version {version}.", fix=PUBLISH)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(head, max_header_size=_LONGEST_HEADER)
        start = head.tell()
        counts = all(type(size) is int and size >= 0 for size in shape)
        if dtype.hasobject or dtype.kind not in "fiub" or not counts:
            raise BundleError(
                "bundle.array_mismatch", f"{name} holds {dtype} {_told(shape)}, which are no numbers.", fix=PUBLISH
            )
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != len(content) - start:
            raise BundleError(
                "bundle.array_mismatch",
                f"{name} claims to hold {dtype} {_told(shape)}, {claimed} bytes, and holds {len(content) - start}.",
                fix=PUBLISH,
            )
        flat = content[start:].view(dtype)
        array: NDArray[Any] = flat.reshape(shape, order="F" if by_columns else "C")
        if not array.flags.aligned:
            array = array.copy()
    check_finite(name, array)
    return array


def check_finite(name: str, array: NDArray[Any]) -> None:
    """Raises `BundleError` (`bundle.not_finite`) where a number of a float array is NaN or infinite."""
    if array.dtype.kind != "f":
        return
    rows = np.atleast_1d(array)
    step = max(1, _LOOKED_AT // max(1, math.prod(rows.shape[1:])))
    for start in range(0, len(rows), step):
        sound = _finite(rows[start : start + step])
        if not sound.all():
            where = np.argwhere(~sound)[0]
            where[0] += start
            raise BundleError(
                "bundle.not_finite",
                f"{name} holds {rows[tuple(where)]} at {tuple(where.tolist())}, which is no number.",
                fix=PUBLISH,
            )


def _finite(part: NDArray[Any]) -> NDArray[Any]:
    if part.dtype == np.float16:
        # By its bits: NumPy turns every float16 into a float32 first.
        return np.asarray((np.ascontiguousarray(part).view(np.uint16) & 0x7C00) != 0x7C00)
    return np.asarray(np.isfinite(part))


def _told(shape: tuple[Any, ...]) -> str:
    return str(shape)[:100]
