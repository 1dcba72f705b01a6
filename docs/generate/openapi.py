"""`python -m docs.generate.openapi`: prints the API's document as the service serves it at /openapi.json."""

import json

from service.app import create_app
from service.settings import Settings


def document() -> str:
    # Not `Settings()`, which would read the environment.
    return json.dumps(create_app(Settings.model_construct()).openapi())


if __name__ == "__main__":
    print(document())
