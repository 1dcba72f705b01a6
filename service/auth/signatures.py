"""Checks the signatures of shop systems, which send no API key: the base64 of an HMAC-SHA256 over the raw body."""

import base64
import hmac
from collections.abc import Sequence

from pydantic import SecretStr

from isrf.contract.errors import AccessError

SHOPIFY, WOOCOMMERCE = "/webhooks/shopify", "/webhooks/woocommerce"
SIGNED = frozenset({SHOPIFY, WOOCOMMERCE})
"""Paths that need no key, because the route checks a signature of the body."""


def check_signature(body: bytes, sent: Sequence[str], secret: SecretStr | None, variable: str) -> None:
    """Raises `AccessError` for a body without one valid signature; a wrong one takes as long as a right one.

    Args:
        sent: the values of the signature's header.
        secret: from the settings; None: nothing can be valid.
        variable: the setting's name.
    """
    if secret is None:
        raise AccessError(
            "webhook.no_secret",
            f"this webhook is not set up: {variable} is not set.",
            fix=f"Set {variable}, or {variable}_FILE to a file that holds it, to the secret that the shop system signs "
            "with.",
        )
    valid = base64.b64encode(hmac.digest(secret.get_secret_value().encode(), body, "sha256"))
    if len(sent) != 1 or not hmac.compare_digest(valid, sent[0].strip().encode("utf-8", "surrogatepass")):
        raise AccessError(
            "webhook.signature",
            "the body is not signed with the secret of this webhook.",
            fix=f"Set {variable} to the secret that the shop system signs with; a proxy must leave the body as it is.",
        )
