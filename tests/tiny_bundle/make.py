"""Makes the release that stands in `tests/tiny_bundle/releases`, for tests that need a release and no trained one.

    python -m tests.tiny_bundle.make [FOLDER]

It is a true release: a corner of the demo shop, taken through every stage of the offline job at the smallest sizes, and
published. Its moments are set to the day after the shop's last event: made twice on one machine it is equal, and no
machine's clock is behind it. It recommends nothing worth having: what it was taught, it was taught for two epochs.

Needed after a change of the bundle's format alone. It replaces what FOLDER holds.
"""

import csv
import json
import shutil
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from isrf.contract.manifest import MANIFEST_FILE, LearnedUntil, Manifest
from isrf.contract.manifest_seal import sealed
from offline.commands.demo_shop.generate import generate
from offline.commands.demo_shop.groups import GROUPS
from offline.commands.publish import publish
from offline.config import build_config
from tests.shops import TINY, run_stages

RELEASES = Path(__file__).parent / "releases"
SHOPPERS = 900
ITEMS_PER_CATEGORY = 12
MOST_USERS, LEAST_EVENTS = 120, 5
MADE_AT = datetime(2025, 9, 2, tzinfo=UTC)
CATEGORIES = frozenset(leaf for group in GROUPS[:2] for leaf in group.leaves)
SIZES = (
    *TINY,
    "search.num_dense=64",
    "search.int8=true",
    "search.fp16=true",
    "evidence.list_length=20",
    "embed.dim=8",
    "semantic_ids.codebook_size=16",
)


def write_corner(shop: Path, folder: Path) -> None:
    """A shop of some items of `CATEGORIES` alone, and of the first shoppers who bought enough of them."""
    lines = (shop / "items.jsonl").read_text(encoding="utf-8").splitlines()
    by_category: dict[str, list[str]] = {}
    for line in lines:
        by_category.setdefault(json.loads(line)["categories"][-1], []).append(line)
    items = [line for category in sorted(CATEGORIES) for line in by_category[category][:ITEMS_PER_CATEGORY]]
    kept = {json.loads(line)["item_id"] for line in items}
    with (shop / "interactions.csv").open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        names = list(rows.fieldnames or ())
        events = [row for row in rows if row["item_id"] in kept]
    taken = Counter(row["user_id"] for row in events)
    users = set(sorted(user for user, number in taken.items() if number >= LEAST_EVENTS)[:MOST_USERS])
    folder.mkdir(parents=True)
    (folder / "items.jsonl").write_text("\n".join(items) + "\n", encoding="utf-8")
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in events if row["user_id"] in users)


def set_moments(bundle: Path) -> None:
    """Dates a bundle to `MADE_AT` and seals it again."""
    path = bundle / MANIFEST_FILE
    manifest = Manifest.model_validate_json(path.read_bytes())
    until = LearnedUntil(events=MADE_AT.timestamp(), items=MADE_AT.timestamp())
    dated = manifest.model_copy(update={"created_at": MADE_AT.isoformat(timespec="seconds"), "learned_until": until})
    path.write_text(sealed(dated).model_dump_json(indent=2), encoding="utf-8")


def make(releases: Path) -> Path:
    """Fills a folder with the tiny release, `current` pointing to it; returns the release's folder."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        generate(work / "whole", seed=0, num_shoppers=SHOPPERS)
        write_corner(work / "whole", work / "data")
        bundle = run_stages("export", work / "data", work / "work", build_config("demo", None, SIZES))["export"]
        set_moments(bundle)
        shutil.rmtree(releases, ignore_errors=True)
        return publish(bundle, releases)


if __name__ == "__main__":
    print(make(Path(sys.argv[1]) if len(sys.argv) > 1 else RELEASES))
