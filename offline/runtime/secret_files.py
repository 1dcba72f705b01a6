"""Reads secrets from the environment, or from files, as container platforms provide them.

`REDIS_URL_FILE` names a file with the value of `REDIS_URL`, as in the service. So no command line holds a password.
"""

import os

from isrf.contract.errors import ConfigError
from isrf.runtime.secret_files import secret_in_file

ERASURE_KEY = "ISRF_ERASURE_KEY"
REDIS_URL = "REDIS_URL"
FROM_ENVIRONMENT = "env"


def secret(variable: str) -> str | None:
    """The variable's value, or the content of the file that `<variable>_FILE` names; None where it is empty.

    Raises:
        ConfigError: as `secret_in_file`.
    """
    from_file = secret_in_file(variable)
    return (os.environ.get(variable) if from_file is None else from_file) or None


def store_url(option: str) -> str:
    """The store's URL: `option` itself, or for `env` the value of REDIS_URL or REDIS_URL_FILE.

    Raises:
        ConfigError: `env`, and neither is set.
    """
    if option != FROM_ENVIRONMENT:
        return option
    url = secret(REDIS_URL)
    if url is None:
        raise ConfigError("config.no_store", "neither REDIS_URL nor REDIS_URL_FILE is set.", fix="Set one of them.")
    return url
