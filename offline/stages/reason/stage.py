"""Runs the stage: reads the ingest stage's tables, writes the feature tables and the report."""

import json
from pathlib import Path
from typing import Any

from offline.context import StageContext
from offline.stages.reason.attributes.reasoner import reason_from_attributes
from offline.stages.reason.corpus import read_corpus
from offline.stages.reason.llm.reasoner import reason_by_llm
from offline.stages.reason.tables import describe_tables, item_table, user_table

VERSION = 4
LEDGER_FILE = "ledger.sqlite3"


def run(ctx: StageContext) -> None:
    """Writes `item_features.parquet`, `user_features.parquet` and `report.json` to `ctx.out`."""
    config = ctx.config.reason
    corpus = read_corpus(ctx.inputs["ingest"], currency=config.currency)
    attribute = reason_from_attributes(corpus)
    report: dict[str, Any] = {"reasoner": config.reasoner}
    if config.reasoner == "attribute":
        items, users = item_table(attribute.items, "attribute"), user_table(attribute.users, "attribute")
    else:
        reasoned = reason_by_llm(
            corpus,
            attribute,
            config=config,
            ledger_path=ledger_path(ctx),
            progress=ctx.progress,
            engine=ctx.engine,
        )
        items, users = item_table(*reasoned.items), user_table(*reasoned.users)
        report["llm"] = reasoned.report
    items.write_parquet(ctx.out / "item_features.parquet")
    users.write_parquet(ctx.out / "user_features.parquet")
    report |= describe_tables(items, users)
    (ctx.out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def ledger_path(ctx: StageContext) -> Path:
    """Returns the ledger's path: the configured one, else one file for all runs, beside the stage's outputs."""
    return ctx.config.reason.ledger or ctx.scratch.parent / LEDGER_FILE
