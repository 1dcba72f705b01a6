"""What a release is called and what protects its manifest: two hashes over the manifest itself (no IO).

`release_id` is `r-` and 12 hex digits of the SHA-256 over every field but `UNCOUNTED`: itself, the seal, and the
moments at which this run was made. `files` has the SHA-256 of every file, so that one byte anywhere is another id, and
two runs that made the same have the same id. `sha256`, the seal, is over every field but itself, moments too: a changed
manifest is known by it. Both prove that nothing was changed by accident or by hand, not who made the release.

A manifest can be sealed again by hand, goldens cannot: `made_from` binds them to what they are the answers of.

The text that is hashed is the manifest as JSON with sorted keys, no spaces and ASCII alone, as Python's `json` writes
it.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from isrf.contract.errors import BundleError
from isrf.contract.manifest import GOLDEN_FILE, GOLDEN_ITEMS_FILE, MANIFEST_FILE, MOMENTS, Manifest

SEAL = "sha256"
UNCOUNTED = frozenset({"release_id", SEAL, *MOMENTS})
ANSWERED_BY = (
    "counts",
    "dimensions",
    "decoding",
    "group_search",
    "fusion",
    "ranker",
    "variants",
    "item_reader",
    "graphs",
)
"""Fields that answers hang on, beside `config.events` and the files."""
_ID_DIGITS = 12
_PUBLISH = "Publish the release again; a manifest is not to be edited."


def release_id_of(fields: Mapping[str, Any]) -> str:
    """The id of a manifest's fields, as JSON has them."""
    return f"r-{_digest({name: value for name, value in fields.items() if name not in UNCOUNTED})[:_ID_DIGITS]}"


def seal_of(fields: Mapping[str, Any]) -> str:
    """The seal of a manifest's fields, as JSON has them."""
    return _digest({name: value for name, value in fields.items() if name != SEAL})


def made_from(fields: Mapping[str, Any]) -> str:
    """What the goldens of a release are the answers of: a hash over its other files, `ANSWERED_BY`, `config.events`."""
    files = {name: entry for name, entry in fields["files"].items() if name not in {GOLDEN_FILE, GOLDEN_ITEMS_FILE}}
    answered_by = {name: fields.get(name) for name in ANSWERED_BY}
    return _digest({**answered_by, "events": fields["config"].get("events"), "files": files})


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its own id and seal; `BundleError` (`bundle.not_finite`) where a number of it is none."""
    fields = json.loads(manifest.model_dump_json())
    wrong = next(_not_finite(fields), None)
    if wrong is not None:
        raise BundleError(
            "bundle.not_finite",
            f"{MANIFEST_FILE} would say {wrong}, which is no number.",
            fix="Report it with the shop's sizes: a figure of this run could not be computed.",
        )
    fields["release_id"] = release_id_of(fields)
    fields[SEAL] = seal_of(fields)
    return manifest.model_copy(update={name: fields[name] for name in ("release_id", SEAL)})


def check_seal(fields: Mapping[str, Any]) -> None:
    """Holds a manifest's fields, as they were read, against their own hashes.

    Raises:
        BundleError: `bundle.manifest_changed`, `bundle.release_id`.
    """
    wanted = seal_of(fields)
    if fields.get(SEAL) != wanted:
        raise BundleError(
            "bundle.manifest_changed",
            f"{MANIFEST_FILE} is not as it was published: its seal says {_short(fields.get(SEAL))}, its content "
            f"{_short(wanted)}.",
            fix=_PUBLISH,
        )
    named = release_id_of(fields)
    if fields.get("release_id") != named:
        raise BundleError(
            "bundle.release_id",
            f"{MANIFEST_FILE} is called {str(fields.get('release_id'))[:100]!r}, its content has the id {named}.",
            fix=_PUBLISH,
        )


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _short(digest: object) -> str:
    return str(digest)[:12] if digest else "nothing"


def _not_finite(value: Any, path: str = "") -> Iterator[str]:
    """`path = value` of every number that is NaN or infinite."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _not_finite(inner, f"{path}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} = {value}"
