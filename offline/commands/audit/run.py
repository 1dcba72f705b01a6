"""Runs all checks of the audit on the shop's data, which it reads again in the order of the release."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from isrf.contract.errors import BundleError
from isrf.contract.manifest import Manifest
from isrf.runtime.bundle.manifests import read_manifest
from isrf.runtime.bundle.reader import verify_files
from offline.commands.audit.accounts import audit_accounts, audit_own_sessions
from offline.commands.audit.contents import audit_contents
from offline.commands.audit.duplicates import audit_duplicates
from offline.commands.audit.findings import Finding
from offline.commands.audit.id_rules import audit_ids
from offline.commands.audit.shop import load_shop
from offline.commands.audit.texts import audit_prompts, audit_user_texts, audit_vocabulary
from offline.commands.audit.ties import audit_shuffling, audit_table, audit_ties, table_ndcg
from offline.commands.reingest import read_again, refuse_other_data, with_settings
from offline.config import RunConfig, build_config
from offline.reading.bad_rows import BadRows
from offline.reading.files import ITEM_FORMATS, find_source
from offline.reading.settings import IngestConfig
from offline.runtime.ingest_report import ingest_report
from offline.stages.ingest.items import read_items

SHUFFLE_SEED = 1


def audit(
    data: Path, release: Path | None, progress: Progress, *, ingest: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Returns the findings about the shop's folder and, if given, a release made from it.

    `ingest` replaces settings of `[ingest]`, which are the release's own otherwise.

    Raises:
        BundleError: the release's files are damaged, or it was trained on all events (`audit.nothing_held_out`).
        DataError: the data cannot be used, or is not the data of the release.
    """
    release = None if release is None else release.resolve()  # `current` is a link
    manifest = None if release is None else _manifest(release)
    config = build_config() if manifest is None else RunConfig.model_validate(manifest.config)
    return list(_findings(data, release, manifest, with_settings(config, ingest or {}), progress))


def _manifest(release: Path) -> Manifest:
    manifest = read_manifest(release)
    if manifest.fit == "all":
        raise BundleError(
            "audit.nothing_held_out",
            f"{manifest.release_id} was trained on all events, for production, so it holds none out.",
            fix=f"Audit {manifest.evaluated_release_id}, the evaluated release with the same settings.",
        )
    verify_files(release, manifest)
    return manifest


def _findings(
    data: Path, release: Path | None, manifest: Manifest | None, config: RunConfig, progress: Progress
) -> Iterator[Finding]:
    with read_again(data, config, progress) as ingested:
        if manifest is not None:
            refuse_other_data(ingested, manifest, data)
        shop = load_shop(ingested)
        yield from audit_ids(shop, _file_order(data, config.ingest))
        report = ingest_report(ingested)
        yield from audit_duplicates(ingested, report)
        yield audit_accounts(shop)
        yield audit_own_sessions(report)
        yield audit_ties(report)
        values = table_ndcg(shop)
        seed = config.ingest.shuffle_ties
        reordered_seed = SHUFFLE_SEED if seed is None else None
        reordered_config = config.model_copy(
            update={"ingest": config.ingest.model_copy(update={"shuffle_ties": reordered_seed})}
        )
        with Progress(console=Console(quiet=True)) as silent, read_again(data, reordered_config, silent) as reordered:
            yield audit_shuffling((_order(seed), values), (_order(reordered_seed), table_ndcg(load_shop(reordered))))
        yield audit_table(values, None if manifest is None else manifest.evaluation["test"])
        yield audit_prompts(shop)
        if release is not None and manifest is not None:
            yield from audit_contents(release, manifest, shop)
            yield audit_user_texts(shop, release)
            yield audit_vocabulary(shop, release)


def _file_order(data: Path, settings: IngestConfig) -> list[str]:
    """Returns the item ids in the order of the catalogue file."""
    source = find_source(data, "items", ITEM_FORMATS)
    items = read_items(source, BadRows(source.name, source.parts), settings).items
    ids: list[str] = items.sort("line")["item_id"].to_list()
    return ids


def _order(seed: int | None) -> str:
    return "ties in file order" if seed is None else f"ties shuffled with seed {seed}"
