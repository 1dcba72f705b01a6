"""Whatever a library makes of a broken file becomes one `BundleError` that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager

from polars.exceptions import PanicException

from isrf.contract.errors import BundleError, ConfigError, IsrfError

PUBLISH = "Publish the release again."
_LONGEST = 300


@contextmanager
def refusing(code: str, name: str) -> Iterator[None]:
    """Around the reading of one part: any error in it is a `BundleError` of this code, its own ones as they are.

    Readers of NumPy, Polars, ONNX Runtime and JSON raise what they like at content that nobody foresaw (a `KeyError`,
    a `RecursionError`, a `MemoryError`, a panic of Polars, which is no `Exception`): none of it may pass for a fault of
    the service.
    """
    try:
        yield
    except (BundleError, ConfigError):
        raise
    except IsrfError as error:
        raise BundleError(code, f"{name}: {error.message}", fix=PUBLISH) from error
    except (Exception, PanicException) as error:
        raise BundleError(
            code, f"{name} cannot be read: {type(error).__name__}: {_told(error)}.", fix=PUBLISH
        ) from error


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST].rstrip(".") if lines else "nothing more is known"
