"""Turns every error of a library about a broken file into a `BundleError` that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from polars.exceptions import PanicException

from isrf.contract.errors import BundleError, ConfigError, IsrfError

PUBLISH = "Publish the release again."
_LONGEST = 300


@contextmanager
def refusing(code: str, name: str) -> Iterator[None]:
    """Turns any error inside the context into a `BundleError` with this code; a `BundleError` passes unchanged.

    The readers of NumPy, Polars, ONNX Runtime and JSON raise many kinds of errors for unforeseen content (a `KeyError`,
    a `RecursionError`, a `MemoryError`, a panic of Polars, which is no `Exception`). None of them may look like a fault
    of the service.
    """
    try:
        yield
    except (BundleError, ConfigError):
        raise
    except IsrfError as error:
        raise BundleError(code, f"{name}: {error.message}", fix=PUBLISH) from error
    except (Exception, PanicException) as error:
        raise BundleError(
            code, f"{name} cannot be read: {type(error).__name__}: {_first_line(error)}.", fix=PUBLISH
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST].rstrip(".") if lines else "no further details"
