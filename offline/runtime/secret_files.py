"""Secrets from the environment, or from the files that container platforms hand them out in.

`REDIS_URL_FILE` stands for `REDIS_URL`, as with the service: a password then stands in no command line.
"""

import os

from isrf.contract.errors import ConfigError
from isrf.runtime.secret_files import secret_in_file

ERASURE_KEY = "ISRF_ERASURE_KEY"
REDIS_URL = "REDIS_URL"
FROM_ENVIRONMENT = "env"


def secret(variable: str) -> str | None:
    """The variable's value, or what stands in the file that `<variable>_FILE` names; None for an empty one.

    Raises:
        ConfigError: as `secret_in_file`.
    """
    found = secret_in_file(variable)
    return (os.environ.get(variable) if found is None else found) or None


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
