"""Checks whether texts about users mention held-out items, and whether the fitted vocabulary holds foreign terms.

A text mentions a held-out item if it contains the first words of the item's title and no text of the user's training
items contains them. Words may coincide, so the check compares the count with the same search after exchanging the
users' held-out items at random.
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
"""Words of a title that the check searches for; the reasoners shorten long titles."""

LEAST_WORDS = 3
NUM_EXCHANGES = 10


def audit_prompts(shop: AuditedShop) -> Finding:
    """Checks the histories in the prompts about users."""
    corpus = read_corpus(shop.folder, currency="$")
    texts = {
        user: json.dumps([taken_data(corpus.items[row], None) for row in corpus.recent(user)], ensure_ascii=False)
        for user in range(shop.num_users)
    }
    return _audit("prompts", "prompts about users", texts, shop)


def audit_user_texts(shop: AuditedShop, release: Path) -> Finding:
    """Checks the semantic user features of the release."""
    table = pl.read_parquet(release / REASONING_DIR / USER_TABLE)
    texts = {
        row["user_index"]: " ".join(text for name in ("likes", "dislikes", "core") if (text := row[name]))
        for row in table.iter_rows(named=True)
    }
    return _audit("user features", "texts about users", texts, shop)


def audit_vocabulary(shop: AuditedShop, release: Path) -> Finding:
    """Checks that every term of the text encoder occurs in the text of an item with training events."""
    texts = read_texts(shop.folder, release / REASONING_DIR)
    known: set[str] = set()
    for fields, fitted in zip(texts.items, texts.fitted, strict=True):
        if fitted:
            known.update(*(tokenize(text) for text in fields.values()))
    vocabulary = read_text_encoder(release / TEXT_ENCODER_DIR).vocabulary
    foreign = sorted(vocabulary.keys() - known)
    text = f"{len(foreign)} of {len(vocabulary)} terms of the text encoder occur in no item with a training event"
    examples = f": {', '.join(foreign[:5])}" if foreign else ""
    return Finding(
        "vocabulary", "leak" if foreign else "ok", text + examples, {"terms": len(vocabulary), "foreign": len(foreign)}
    )


def _audit(line: str, name: str, texts: Mapping[int, str], shop: AuditedShop) -> Finding:
    search = _Search(texts, shop)
    users, items = shop.held_out()
    mentions = search.count(users, items)
    rng = np.random.default_rng(0)
    exchanged = sum(search.count(users, rng.permutation(items)) for _ in range(NUM_EXCHANGES))
    chance = (exchanged + 1) / (len(users) * NUM_EXCHANGES + 1)
    bound = most_hits(len(users), chance)
    return Finding(
        line,
        "leak" if mentions > bound else "ok",
        f"{name} mention the title of {mentions} of {len(users)} held-out items; chance explains at most {bound}",
        {"held_out": len(users), "mentions": mentions, "chance": round(chance, 6), "bound": bound},
    )


class _Search:
    """Searches the texts about users for item titles."""

    def __init__(self, texts: Mapping[int, str], shop: AuditedShop) -> None:
        items = pl.read_parquet(shop.folder / "items.parquet", columns=["title", "brand", "categories", "description"])
        self._titles: list[str] = []
        self._texts: list[str] = []
        for title, brand, categories, description in items.iter_rows():
            words = tokenize(title or "")
            self._titles.append(_spaced(words[:NUM_WORDS]) if len(words) >= LEAST_WORDS else "")
            rest = tokenize(" ".join(text for text in (brand, *(categories or ()), description) if text))
            self._texts.append(_spaced([*words, *rest]))
        self._user_texts = {user: _spaced(tokenize(text)) for user, text in texts.items()}
        self._training = shop.training()

    def count(self, users: IntArray, items: IntArray) -> int:
        """Counts the pairs (P,) of user and item where the user's text mentions the item."""
        return sum(self._mentions(user, item) for user, item in zip(users.tolist(), items.tolist(), strict=True))

    def _mentions(self, user: int, item: int) -> bool:
        title = self._titles[item]
        if not title or title not in self._user_texts.get(user, ""):
            return False
        return not any(title in self._texts[training_item] for training_item in self._training[user])


def _spaced(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "
