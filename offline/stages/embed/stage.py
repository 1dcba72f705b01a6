"""The stage `embed`: encodes the texts, and writes vectors, content lists, a torch-free encoder and a report."""

import json
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from isrf.contract.errors import ConfigError, StageError
from isrf.contract.manifest import TEXT_ENCODER_DIR
from isrf.method.evidence import SparseLists
from isrf.method.interest import FloatArray
from isrf.method.text.encoder import TextEncoder, TextFields
from offline.context import StageContext
from offline.runtime.evidence import save_lists
from offline.stages.embed.counterpart import fit_counterpart
from offline.stages.embed.dense import DenseEncoder, embed_all, join_fields, project
from offline.stages.embed.nearest import MAX_ITEMS_BY_TERMS, nearest_by_terms, nearest_by_vectors
from offline.stages.embed.text_files import write_text_encoder
from offline.stages.embed.texts import Texts, read_texts
from offline.stages.embed.tfidf import fit_tfidf, transform

VERSION = 4
STORE_FILE = "vectors.sqlite3"
HUGGING_FACE = "hf:"
NO_ENCODER = "no-text"


class EncodedTexts(NamedTuple):
    items: FloatArray  # (N, D_t)
    users: FloatArray  # (U, D_t)
    bundled: TextEncoder  # the torch-free encoder for new items
    nearest: SparseLists  # each item's nearest items


def run(ctx: StageContext) -> None:
    """Writes `item_text.npy`, `user_text.npy`, `evidence/content_*.npy`, `text_encoder/`, `report.json` to `ctx.out`.

    Raises:
        ConfigError: `config.encoder`, there is no encoder of this name, or its model cannot be loaded.
        StageError: `embed.no_text`, `embed.no_training_items`, `embed.endpoint`.
    """
    texts = read_texts(ctx.inputs["ingest"], ctx.inputs["reason"])
    fitted = [fields for fields, is_fitted in zip(texts.items, texts.fitted, strict=True) if is_fitted]
    encoder = _dense_encoder(ctx)
    if encoder is None:
        encoded = _encode_tfidf(ctx, texts, fitted)
    else:
        with closing(encoder):
            encoded = _encode_dense(ctx, texts, fitted, encoder)
    np.save(ctx.out / "item_text.npy", encoded.items)
    np.save(ctx.out / "user_text.npy", encoded.users)
    save_lists(ctx.out / "evidence", {"content": encoded.nearest})
    write_text_encoder(ctx.out / TEXT_ENCODER_DIR, encoded.bundled)
    report: dict[str, Any] = {
        "encoder": ctx.config.embed.encoder,
        "fitted_items": len(fitted),
        "items_without_text": int((np.abs(encoded.items).sum(axis=1) == 0).sum()),
        "users_without_text": int((np.abs(encoded.users).sum(axis=1) == 0).sum()),
        "terms": len(encoded.bundled.vocabulary),
        "torch_free_agreement": encoded.bundled.config.agreement,
    }
    (ctx.out / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _dense_encoder(ctx: StageContext) -> DenseEncoder | None:
    name = ctx.config.embed.encoder
    if name in ("tfidf-svd", NO_ENCODER):
        return None
    if name == "openai":
        from offline.stages.embed.endpoint import EndpointEncoder

        return EndpointEncoder(ctx.config.embed)
    if name.startswith(HUGGING_FACE) and len(name) > len(HUGGING_FACE):
        from offline.stages.embed.huggingface import (
            HuggingFaceEncoder,  # torch and transformers, only where they are needed
        )

        return HuggingFaceEncoder(name.removeprefix(HUGGING_FACE))
    raise ConfigError(
        "config.encoder",
        f"there is no text encoder {name!r}.",
        fix="Use tfidf-svd, hf:<hub name or directory>, openai, or no-text, which reads no text.",
    )


def _encode_tfidf(ctx: StageContext, texts: Texts, fitted: list[TextFields]) -> EncodedTexts:
    if ctx.config.embed.encoder == NO_ENCODER:
        texts = texts._replace(items=[{} for _ in texts.items], users=[{} for _ in texts.users])
        fitted = []
    encoder = fit_tfidf(fitted, dim=ctx.config.embed.dim, seed=ctx.config.seed)
    items = transform(encoder, texts.items)
    by_terms = len(items) <= MAX_ITEMS_BY_TERMS
    nearest = (
        nearest_by_terms(encoder, texts.items, engine=ctx.engine)
        if by_terms
        else nearest_by_vectors(items, engine=ctx.engine, progress=ctx.progress)
    )
    return EncodedTexts(items, transform(encoder, texts.users), encoder, nearest)


def _encode_dense(ctx: StageContext, texts: Texts, fitted: list[TextFields], encoder: DenseEncoder) -> EncodedTexts:
    config = ctx.config.embed
    if not any(fitted):
        raise StageError(
            "embed.no_text",
            f"the {len(fitted)} items with training interactions have no text, which {config.encoder} needs.",
            fix="Give items a title, brand, categories or description, or use --encoder tfidf-svd (it needs no text).",
        )
    joined = [join_fields(fields) for fields in (*texts.items, *texts.users)]
    task = ctx.progress.add_task(f"embed: {config.encoder}", total=len(joined))
    raw = embed_all(
        encoder,
        joined,
        store=ctx.scratch.parent / STORE_FILE,
        batch_size=config.batch_size,
        advance=lambda number: ctx.progress.advance(task, number),
        engine=ctx.engine,
    )
    items, users = project(raw[: len(texts.items)], raw[len(texts.items) :], texts.fitted, config.dim)
    bundled = fit_counterpart(fitted, items[texts.fitted], stands_for=config.encoder, seed=ctx.config.seed)
    return EncodedTexts(items, users, bundled, nearest_by_vectors(items, engine=ctx.engine, progress=ctx.progress))
