"""Finds the phrases that short texts have in common: phrases that a group of texts holds more often than other texts.

The service uses them to say *which* interest some evidence stands for. Every phrase is a quotation from the texts.
Texts in, phrases out; it does not know whose texts they are.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_WORDS = 4
"""Most words of a phrase."""
MIN_LIFT = 2.0
"""A phrase must be this many times as frequent in the group as in texts in general."""

WHOLE = 0.8
"""If this share of a phrase's texts hold it inside one longer phrase, it counts as a part of that phrase."""

_WORD = re.compile(r"[^\W_]+(?:[-'’&.][^\W_]+)*")
_GAP = re.compile(r"[ \u00a0&]*")
_STOPS = """
    a about after all also am among an and any are as at be been bought budget but by can come comes could do does
    each else especially etc every few for from had has have he her hers him his how i if in interest interested
    into is it its just kind kinds less like liked likely likes liking may me mid-priced might more most mostly much
    my no nor not of off often on one only or other others our out over own per prefer prefers premium quite rather
    returns same seldom she should show shows so some such suits than that the their theirs them then there these
    they this those to too under up upon us very was we well were what when where which while who whom whose will
    with within without would you your
"""
_STOP_WORDS = frozenset(_STOPS.split())


class Background(NamedTuple):
    """How many texts of a general collection hold each phrase."""

    num_texts: int
    counts: Mapping[str, int]  # phrases of at least two texts

    def share(self, phrase: str) -> float:
        """The share of the general texts that hold the phrase; never 0, because an unseen phrase may still occur."""
        return (self.counts.get(phrase, 1)) / max(self.num_texts, 1)


def phrases(text: str) -> frozenset[str]:
    """The phrases of a text: runs of up to `MAX_WORDS` words, in lower case, without a stop word at either end.

    Punctuation and numbers end a run.
    """
    found: set[str] = set()
    run: list[str] = []
    end = 0
    for match in _WORD.finditer(text.lower()):
        if not _GAP.fullmatch(text, end, match.start()):
            run = []
        end = match.end()
        word = match.group()
        if word[0].isdigit():
            run = []
            continue
        run = [*run[-(MAX_WORDS - 1) :], word]
        if word in _STOP_WORDS or len(word) < 2:
            continue
        found.update(" ".join(run[at:]) for at, first in enumerate(run) if first not in _STOP_WORDS and len(first) > 1)
    return frozenset(found)


def background(texts: Iterable[str]) -> Background:
    """Counts the phrases of a general collection of texts."""
    num_texts, counts = 0, Counter[str]()
    for text in texts:
        num_texts += 1
        counts.update(phrases(text))
    return Background(num_texts, {phrase: count for phrase, count in counts.items() if count > 1})


class PhraseTable:
    """The phrases that at least `at_least` of a collection of texts hold, and which text holds which phrase."""

    def __init__(self, texts: Sequence[frozenset[str]], general: Background, *, at_least: int) -> None:
        """`texts`: the phrases of each text."""
        self._at_least, self._num_texts = at_least, len(texts)
        counts = Counter(phrase for text in texts for phrase in text)
        shared = {phrase: count for phrase, count in counts.items() if count >= at_least}
        self._phrases = sorted(shared.keys() - _parts(shared))
        place = {phrase: at for at, phrase in enumerate(self._phrases)}
        self._holds = np.zeros((len(texts), len(self._phrases)), dtype=np.float32)
        for row, text in enumerate(texts):
            self._holds[row, [place[phrase] for phrase in text if phrase in place]] = 1
        self._general = np.array([general.share(phrase) for phrase in self._phrases])
        self._long = np.array([math.sqrt(phrase.count(" ") + 1) for phrase in self._phrases])

    def shared(self, members: NDArray[np.bool_] | None = None, *, limit: int) -> list[str]:
        """The phrases that distinguish the members' texts from texts in general, best first.

        The score of a phrase is how many members hold it, times the logarithm of its lift over texts in general, times
        the square root of its number of words. Of overlapping phrases only the first is returned.

        Args:
            members: (texts,) bool, None for all.
            limit: most phrases to return.
        """
        chosen = self._holds if members is None else self._holds[members]
        if len(chosen) < self._at_least or not self._phrases:
            return []
        counts = chosen.sum(axis=0)
        lift = counts / len(chosen) / self._general
        distinctive = (counts >= self._at_least) & (lift >= MIN_LIFT)
        scores = np.where(distinctive, counts * np.log(np.maximum(lift, 1.0)) * self._long, 0.0)
        order = np.lexsort((np.arange(len(scores)), -scores))
        return without_overlap((self._phrases[at] for at in order if scores[at] > 0), limit=limit)


def _parts(counts: Mapping[str, int]) -> set[str]:
    """The phrases that hardly ever occur outside one longer phrase."""
    parts: set[str] = set()
    for phrase, count in counts.items():
        words = phrase.split()
        for start in range(len(words)):
            for stop in range(start + 1, len(words) + 1):
                part = " ".join(words[start:stop])
                if part != phrase and count >= WHOLE * counts.get(part, math.inf):
                    parts.add(part)
    return parts


def common_phrases(first: frozenset[str], second: frozenset[str], general: Background, *, limit: int) -> list[str]:
    """The phrases of both texts, the rarest first; none that more than a quarter of texts in general hold."""
    shares = [(general.share(phrase), phrase) for phrase in first & second]
    rare = sorted((share / (phrase.count(" ") + 1), phrase) for share, phrase in shares if share <= 0.25)
    return without_overlap((phrase for _, phrase in rare), limit=limit)


def without_overlap(ordered: Iterable[str], *, limit: int) -> list[str]:
    """The first `limit` phrases that share no word with an earlier phrase of the result."""
    chosen: list[str] = []
    used: set[str] = set()
    for phrase in ordered:
        if len(chosen) == limit:
            break
        words = set(phrase.split()) - _STOP_WORDS
        if not words & used:
            chosen.append(phrase)
            used |= words
    return chosen
