"""Finds a title's distinctive terms by class-based TF-IDF: terms that the titles of its siblings seldom use.

An item's siblings are the items of its category. Each item is a class of its own: score(t) = log(1 + siblings /
siblings with t), for terms of one or two words that at least `MIN_USES` titles use (Grootendorst 2022, BERTopic,
equation 2, with the category as the corpus). It reads words of any script and knows nothing of sentences.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from offline.stages.reason.attributes.wording import singular

MIN_USES = 3
"""Titles that must use a term before it can count as distinctive for one of them."""

MAX_TERMS = 3
FRAGMENT_SHARE = 0.8
PAIR_BONUS = 1.25
"""Factor for a term of two words: together they tell a reader more than one, so `tea tree` precedes `tea`."""

_SEGMENT = re.compile(r"[^\w\s'’&+-]+|\s[-–—]+\s")
_WORD = re.compile(r"[^\W\d_](?:[\w'’-]*[^\W_])?")
_MEASURES = frozenset(
    [
        "oz", "ounce", "ounces", "fl", "fluid", "ml", "inch", "inches", "lb", "lbs", "cm", "mm", "gram", "grams",
        "pound", "pounds", "pack", "packs", "packaging", "count", "ct", "pcs", "pc", "piece", "pieces", "set", "size",
        "bottle", "bottles", "case", "box", "bag", "quantity", "total", "single", "each", "assorted", "color", "colors",
        "colour", "style", "styles", "item", "items", "product", "products", "brand", "original", "new", "free", "made",
        "great", "best", "use", "used",
    ]
)  # fmt: skip
_JOINTS = {"&", "and"}
STOP_WORDS = ENGLISH_STOP_WORDS | _MEASURES


class _Spellings:
    """Counts how titles write their words, and which words mostly follow a stop word (`York` after `New`)."""

    def __init__(self) -> None:
        self._total: Counter[str] = Counter()
        self._capitals: Counter[str] = Counter()
        self._after_stop: Counter[str] = Counter()

    def count(self, word: str, surface: str, *, after_stop: bool) -> None:
        self._total[word] += 1
        self._capitals[word] += surface.isupper()
        self._after_stop[word] += after_stop

    def is_fragment(self, word: str) -> bool:
        return self._after_stop[word] > FRAGMENT_SHARE * self._total[word]

    def show(self, word: str) -> str:
        """Returns the word in lower case, or in capitals if it is short and titles mostly write it so."""
        return word.upper() if len(word) <= 4 and 2 * self._capitals[word] > self._total[word] else word


class Term(NamedTuple):
    text: str
    score: float


def distinctive_terms(
    titles: Sequence[str], groups: Sequence[str], own_words: Sequence[str], *, fitted: Sequence[bool]
) -> list[tuple[Term, ...]]:
    """Returns up to `MAX_TERMS` terms per title, best first.

    Args:
        titles: (N,) titles.
        groups: (N,) category of each item; an item's siblings share it.
        own_words: (N,) text whose words add nothing (the item's brand and category names); they are skipped.
        fitted: (N,) whether the counts include the title; any other title is scored as if it alone were added.
    """
    spellings = _Spellings()
    found = [_terms(title, spellings if known else _Spellings()) for title, known in zip(titles, fitted, strict=True)]
    uses = Counter(term for terms, known in zip(found, fitted, strict=True) if known for term in terms)
    sizes = Counter(group for group, known in zip(groups, fitted, strict=True) if known)
    in_group: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for terms, group, known in zip(found, groups, fitted, strict=True):
        if known:
            in_group[group].update(terms)
    return [
        _choose(
            terms,
            in_group[group],
            sizes[group],
            count_itself=not known,
            uses=uses,
            own_words=_words(own_text),
            spellings=spellings,
        )
        for terms, group, own_text, known in zip(found, groups, own_words, fitted, strict=True)
    ]


def _terms(title: str, spellings: _Spellings) -> list[str]:
    """Returns the terms of a title, each once, in order of first use."""
    terms: dict[str, None] = {}
    for segment in _SEGMENT.split(title):
        previous = joint = ""
        after_stop = False
        for surface in segment.split():
            if surface.lower() in _JOINTS and previous:
                joint = f" {surface.lower()} "
                continue
            match = _WORD.fullmatch(surface.strip("-'’+"))
            word = match.group().lower().replace("’", "'") if match else ""
            if len(word) < 2 or word in STOP_WORDS:
                previous, after_stop = "", bool(word)
                continue
            spellings.count(word, match.group() if match else "", after_stop=after_stop)
            terms[word] = None
            if previous and previous != word:
                terms[f"{previous}{joint or ' '}{word}"] = None
            previous, joint, after_stop = word, "", False
    return list(terms)


def _choose(
    terms: Sequence[str],
    siblings: Counter[str],
    num_siblings: int,
    *,
    count_itself: bool,
    uses: Counter[str],
    own_words: set[str],
    spellings: _Spellings,
) -> tuple[Term, ...]:
    scored = []
    for term in terms:
        words = term.split()
        if uses[term] < MIN_USES or any(stem(word) in own_words for word in words):
            continue
        if len(words) == 1 and spellings.is_fragment(term):
            continue
        bonus = PAIR_BONUS if len(words) > 1 else 1.0
        score = math.log1p((num_siblings + count_itself) / (siblings[term] + count_itself)) * bonus
        scored.append((-score, term))
    chosen: list[Term] = []
    used_stems: set[str] = set()
    for negative, term in sorted(scored):
        stems = {stem(word) for word in term.split()} - _JOINTS
        if stems & used_stems:
            continue
        used_stems |= stems
        chosen.append(Term(" ".join(map(spellings.show, term.split())), -negative))
        if len(chosen) == MAX_TERMS:
            break
    return tuple(chosen)


def _words(text: str) -> set[str]:
    return {stem(word.lower()) for word in _WORD.findall(text)}


def stem(word: str) -> str:
    """Returns one form for the singular, plural and possessive of a word."""
    return singular(word.removesuffix("'s").removesuffix("’s"))
