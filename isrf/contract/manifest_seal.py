"""The id of a release and the seal of its manifest: two hashes over the manifest itself (no IO).

`release_id` is `r-` and 12 hex digits of the SHA-256 over every field except `UNCOUNTED`: the id itself, the seal, and
the times of the run. `files` has the SHA-256 of every file, so a change of one byte gives another id, and two runs with
equal results have the same id. `sha256`, the seal, covers every field except itself, times too, so it reveals a changed
manifest. Both show that nothing was changed by accident or by hand. They do not show who made the release.

Somebody can seal an edited manifest again. The golden requests still detect the edit: `made_from` binds them to the
parts of the release that they check.

The hashed text is the manifest as JSON with sorted keys, no spaces and only ASCII, as Python's `json` writes it.
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
"""Fields that the answers depend on, in addition to `config.events` and the files."""
_ID_DIGITS = 12
_PUBLISH = "Publish the release again; do not edit a manifest."


def release_id_of(fields: Mapping[str, Any]) -> str:
    """The release id of a manifest, given its fields as parsed from JSON."""
    return f"r-{_digest({name: value for name, value in fields.items() if name not in UNCOUNTED})[:_ID_DIGITS]}"


def seal_of(fields: Mapping[str, Any]) -> str:
    """The seal of a manifest, given its fields as parsed from JSON."""
    return _digest({name: value for name, value in fields.items() if name != SEAL})


def made_from(fields: Mapping[str, Any]) -> str:
    """A hash of all that a release's golden answers depend on: its other files, `ANSWERED_BY`, `config.events`."""
    files = {name: entry for name, entry in fields["files"].items() if name not in {GOLDEN_FILE, GOLDEN_ITEMS_FILE}}
    answered_by = {name: fields.get(name) for name in ANSWERED_BY}
    return _digest({**answered_by, "events": fields["config"].get("events"), "files": files})


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its own id and seal.

    Raises:
        BundleError: `bundle.not_finite`, a number in it is NaN or infinite.
    """
    fields = json.loads(manifest.model_dump_json())
    wrong = next(_not_finite(fields), None)
    if wrong is not None:
        raise BundleError(
            "bundle.not_finite",
            f"{MANIFEST_FILE} would hold {wrong}, which is not a finite number.",
            fix="Report it with the shop's sizes: a figure of this run could not be computed.",
        )
    fields["release_id"] = release_id_of(fields)
    fields[SEAL] = seal_of(fields)
    return manifest.model_copy(update={name: fields[name] for name in ("release_id", SEAL)})


def check_seal(fields: Mapping[str, Any]) -> None:
    """Checks a manifest's fields, as they were read, against its seal and its id.

    Raises:
        BundleError: `bundle.manifest_changed`, `bundle.release_id`.
    """
    seal = seal_of(fields)
    if fields.get(SEAL) != seal:
        raise BundleError(
            "bundle.manifest_changed",
            f"{MANIFEST_FILE} was changed after publishing: its seal is {_short(fields.get(SEAL))}, its content has "
            f"the seal {_short(seal)}.",
            fix=_PUBLISH,
        )
    release_id = release_id_of(fields)
    if fields.get("release_id") != release_id:
        raise BundleError(
            "bundle.release_id",
            f"{MANIFEST_FILE} has the release_id {str(fields.get('release_id'))[:100]!r}, but its content has the id "
            f"{release_id}.",
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
