"""Checks the signatures of shop systems, which send no API key: the base64 of an HMAC-SHA256 over the raw body."""

import base64
import hmac
from collections.abc import Sequence

from pydantic import SecretStr

from isrf.contract.errors import AccessError

SHOPIFY, WOOCOMMERCE = "/webhooks/shopify", "/webhooks/woocommerce"
VARIABLES = {SHOPIFY: "ISRF_SHOPIFY_WEBHOOK_SECRET", WOOCOMMERCE: "ISRF_WOOCOMMERCE_WEBHOOK_SECRET"}
"""The setting that holds the secret of each path."""
SIGNED = frozenset(VARIABLES)
"""Paths that need no key, because the route checks a signature of the body."""
COUNT_FAILURE = "count_failure"
"""Key in a request's state of the function that counts a wrong signature for the address that it comes from."""


def no_secret(path: str) -> AccessError:
    """Returns the error for a path whose secret is not in the settings, so that no signature can be valid."""
    variable = VARIABLES[path]
    return AccessError(
        "webhook.no_secret",
        f"this webhook is not set up: {variable} is not set.",
        fix=f"Set {variable}, or {variable}_FILE to a file that holds it, to the secret that the shop system signs "
        "with.",
    )


def check_signature(path: str, body: bytes, sent: Sequence[str], secret: SecretStr | None) -> None:
    """Raises `AccessError` for a body without one valid signature; a wrong one takes as long as a right one.

    Args:
        sent: the values of the signature's header.
        secret: from the settings; None: nothing can be valid.
    """
    if secret is None:
        raise no_secret(path)
    variable = VARIABLES[path]
    valid = base64.b64encode(hmac.digest(secret.get_secret_value().encode(), body, "sha256"))
    if len(sent) != 1 or not hmac.compare_digest(valid, sent[0].strip().encode("utf-8", "surrogatepass")):
        raise AccessError(
            "webhook.signature",
            "the body is not signed with the secret of this webhook.",
            fix=f"Set {variable} to the secret that the shop system signs with; a proxy must leave the body as it is.",
        )
