"""Reads a secret from a file, as container platforms provide it: `REDIS_URL_FILE` names the file for `REDIS_URL`."""

import os
from pathlib import Path

from isrf.contract.errors import ConfigError


def secret_in_file(variable: str) -> str | None:
    """The stripped content of the file that `<variable>_FILE` names; None where that variable is not set.

    Raises:
        ConfigError: `config.secret_twice`, `<variable>` is set as well; `config.secret_file`, the file cannot be read.
    """
    file = os.environ.get(f"{variable}_FILE")
    if not file:
        return None
    if os.environ.get(variable):
        raise ConfigError(
            "config.secret_twice", f"{variable} and {variable}_FILE are both set.", fix="Unset one of them."
        )
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.secret_file",
            f"{variable}_FILE cannot be read ({type(error).__name__}).",
            fix="Let it name a text file that holds only the secret and that this process can read.",
        ) from None
