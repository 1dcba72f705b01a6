"""Do texts mention what is held out? Titles looked for in what is told of users, terms in the fitted vocabulary.

A mention is the beginning of a held-out item's title, word for word, that stands in no text of the user's own training
items. Words may coincide; so the count is held against the same search with everybody's held-out items exchanged.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from isrf.contract.manifest import REASONING_DIR, TEXT_ENCODER_DIR
from isrf.method.interest import IntArray
from isrf.method.text.encoder import tokenize
from offline.commands.audit.chance import most_hits
from offline.commands.audit.findings import Finding
from offline.commands.audit.shop import AuditedShop
from offline.stages.embed.text_files import read_text_encoder
from offline.stages.embed.texts import read_texts
from offline.stages.reason.corpus import read_corpus
from offline.stages.reason.llm.prompting import taken_data
from offline.stages.reason.show import USER_TABLE

NUM_WORDS = 5
"""Of a title; reasoners shorten long ones."""

LEAST_WORDS = 3
NUM_EXCHANGES = 10


def audit_prompts(shop: AuditedShop) -> Finding:
    """What a prompt over a user would tell of the history."""
    corpus = read_corpus(shop.folder, currency="$")
    told = {
        user: json.dumps([taken_data(corpus.items[row], None) for row in corpus.recent(user)], ensure_ascii=False)
        for user in range(shop.num_users)
    }
    return _audit("prompts", "prompts over users", told, shop)


def audit_user_texts(shop: AuditedShop, release: Path) -> Finding:
    """The semantic user features that the release holds."""
    table = pl.read_parquet(release / REASONING_DIR / USER_TABLE)
    texts = {
        row["user_index"]: " ".join(text for name in ("likes", "dislikes", "core") if (text := row[name]))
        for row in table.iter_rows(named=True)
    }
    return _audit("user features", "texts over users", texts, shop)


def audit_vocabulary(shop: AuditedShop, release: Path) -> Finding:
    """Every term that the text encoder knows stands in the text of an item that somebody took in training."""
    texts = read_texts(shop.folder, release / REASONING_DIR)
    known: set[str] = set()
    for fields, fitted in zip(texts.items, texts.fitted, strict=True):
        if fitted:
            known.update(*(tokenize(text) for text in fields.values()))
    vocabulary = read_text_encoder(release / TEXT_ENCODER_DIR).vocabulary
    foreign = sorted(vocabulary.keys() - known)
    text = f"{len(foreign)} of {len(vocabulary)} terms of the text encoder stand in no item that was taken in training"
    named = f": {', '.join(foreign[:5])}" if foreign else ""
    return Finding(
        "vocabulary", "leak" if foreign else "ok", text + named, {"terms": len(vocabulary), "foreign": len(foreign)}
    )


def _audit(line: str, name: str, told: Mapping[int, str], shop: AuditedShop) -> Finding:
    search = _Search(told, shop)
    users, items = shop.held_out()
    mentions = search.count(users, items)
    rng = np.random.default_rng(0)
    exchanged = sum(search.count(users, rng.permutation(items)) for _ in range(NUM_EXCHANGES))
    chance = (exchanged + 1) / (len(users) * NUM_EXCHANGES + 1)
    bound = most_hits(len(users), chance)
    return Finding(
        line,
        "leak" if mentions > bound else "ok",
        f"{name} mention the title of {mentions} of {len(users)} held-out items; by chance at most {bound}",
        {"held_out": len(users), "mentions": mentions, "chance": round(chance, 6), "bound": bound},
    )


class _Search:
    """Titles in what is told of users."""

    def __init__(self, told: Mapping[int, str], shop: AuditedShop) -> None:
        items = pl.read_parquet(shop.folder / "items.parquet", columns=["title", "brand", "categories", "description"])
        self._titles: list[str] = []
        self._texts: list[str] = []
        for title, brand, categories, description in items.iter_rows():
            words = tokenize(title or "")
            self._titles.append(_spaced(words[:NUM_WORDS]) if len(words) >= LEAST_WORDS else "")
            rest = tokenize(" ".join(text for text in (brand, *(categories or ()), description) if text))
            self._texts.append(_spaced([*words, *rest]))
        self._told = {user: _spaced(tokenize(text)) for user, text in told.items()}
        self._training = shop.training()

    def count(self, users: IntArray, items: IntArray) -> int:
        """Pairs (P,) of user and item where the user is told of the item and of no training item in the same words."""
        return sum(self._mentions(user, item) for user, item in zip(users.tolist(), items.tolist(), strict=True))

    def _mentions(self, user: int, item: int) -> bool:
        title = self._titles[item]
        if not title or title not in self._told.get(user, ""):
            return False
        return not any(title in self._texts[own] for own in self._training[user])


def _spaced(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "
