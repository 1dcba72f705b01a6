"""Secrets from the environment, or from the files that container platforms hand them out in.

`REDIS_URL_FILE` stands for `REDIS_URL`, as with the service: a password then stands in no command line.
"""

import os
from pathlib import Path

from isrf.errors import ConfigError

ERASURE_KEY = "ISRF_ERASURE_KEY"
REDIS_URL = "REDIS_URL"
FROM_ENVIRONMENT = "env"


def secret(variable: str) -> str | None:
    """The variable's value, or what stands in the file that `<variable>_FILE` names; None for an empty one.

    Raises:
        ConfigError: both are set, or the file cannot be read.
    """
    file, value = os.environ.get(f"{variable}_FILE"), os.environ.get(variable)
    if not file:
        return value or None
    if value:
        raise ConfigError(
            "config.secret_twice", f"{variable} and {variable}_FILE are both set.", fix="Unset one of them."
        )
    try:
        return Path(file).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "config.secret_file",
            f"{variable}_FILE cannot be read ({type(error).__name__}).",
            fix="Point it to a text file with nothing but the secret.",
        ) from None


def store_url(given: str) -> str:
    """The store that was given, or for `env` the one that REDIS_URL or REDIS_URL_FILE names.

    Raises:
        ConfigError: `env`, and neither is set.
    """
    if given != FROM_ENVIRONMENT:
        return given
    found = secret(REDIS_URL)
    if found is None:
        raise ConfigError("config.no_store", "neither REDIS_URL nor REDIS_URL_FILE is set.", fix="Set one of them.")
    return found
